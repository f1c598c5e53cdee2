package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"example.org/security-training/services/audit"
)

// Serve answers until ctx ends, then drains. It fails at once if a listed route has no handler, or a handler's route is
// not listed.
func (n *Node) Serve(ctx context.Context) error {
	if err := n.checkRoutes(); err != nil {
		return fmt.Errorf("serve %s: %w", n.self.Name, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	run := func(what string, f func(context.Context) error) {
		group.Go(func() {
			if err := f(ctx); err != nil {
				stop(fmt.Errorf("serve %s: %s: %w", n.self.Name, what, err))
			}
		})
	}
	run("health", n.serveHealth)
	if len(n.self.Serves) > 0 {
		run("mesh", newMeshPort(n).listen)
	}
	if n.people != nil {
		ports := newPeoplePorts(n)
		run("people", ports.serve)
		if n.self.WebTLS != 0 && n.cfg.PeopleTLS != "" {
			run("people with certificates", ports.serveTLS)
		}
	}
	n.serving.Store(true)
	<-ctx.Done()
	n.serving.Store(false)
	group.Wait()
	n.closePeers()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	n.refusals.close()
	n.audit.Write(audit.Entry{Kind: "stop"})
	return errors.Join(err, n.audit.Close())
}

func (n *Node) checkRoutes() error {
	var faults []error
	for _, route := range n.self.Routes() {
		if n.handlers[route] == nil {
			faults = append(faults, fmt.Errorf("topology lists the route %q, for which there is no handler", route))
		}
	}
	if (n.people != nil) != (n.self.Web != 0) {
		faults = append(faults, errors.New("a handler for people and a web port go together, and only one of them is there"))
	}
	for route := range n.handlers {
		if _, listed := n.self.Serves[route]; !listed {
			faults = append(faults, fmt.Errorf("there is a handler for the route %q, which topology does not list", route))
		}
	}
	return errors.Join(faults...)
}

// serveHealth answers /live and /ready with a status and no body: the caller has no SVID, so it may not read anything.
func (n *Node) serveHealth(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := n.Check(ctx); err != nil || !n.serving.Load() {
			n.log.Debug("not ready", "why", err)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	listener, err := net.Listen("tcp", n.address(n.self.Health))
	if err != nil {
		return err
	}
	return serveHTTP(ctx, newServer(n.log, mux), listener)
}

// serveHTTP serves until ctx ends and then drains for up to five seconds.
func serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(drain); err != nil {
		return s.Close()
	}
	return nil
}

func newServer(log *slog.Logger, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      120 * time.Second,
		IdleTimeout:       60 * time.Second,
		// In HTTP/2, WriteTimeout limits an answer; this limits the connection.
		HTTP2:          &http.HTTP2Config{WriteByteTimeout: 30 * time.Second},
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
