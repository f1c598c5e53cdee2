package mesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"
)

// servePprof serves Go's profiles of this process on a unix socket until ctx ends. A dump of a heap holds every
// secret of the process, so there is no port for it: the socket is for its owner alone, in a folder that its owner
// alone may enter.
func servePprof(ctx context.Context, socket string, log *slog.Logger) error {
	dir := filepath.Dir(socket)
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("serve profiles: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("serve profiles: others may enter %s, which has mode %#o; want 0700", dir, fi.Mode().Perm())
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // an earlier process's
		return fmt.Errorf("serve profiles: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve profiles: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return fmt.Errorf("serve profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("serve profiles", "error", err.Error())
		}
	}()
	context.AfterFunc(ctx, func() { server.Close() }) // a profile that is being made may take as long as was asked for
	log.Info("profiles", "socket", socket)
	return nil
}
