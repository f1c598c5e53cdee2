// Package bridge connects a process's standard streams to a unix socket or a file, for a pod whose image has no shell,
// netcat or tail. Only those who may exec into the pod can use the socket or read the file.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// Run executes args. "wait" does nothing until ctx ends, to keep a container running. "connect PATH" copies in to the
// unix socket at PATH and the socket's output to out, until either side ends. "tail PATH OFFSET" copies the file at
// PATH to out from OFFSET bytes on, and continues as it grows.
func Run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "wait":
		<-ctx.Done()
		return nil
	case len(args) == 2 && args[0] == "connect":
		return connect(ctx, args[1], in, out)
	case len(args) == 3 && args[0] == "tail":
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // the reader is gone when the input ends
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
		return tail(ctx, args[1], args[2], out)
	}
	return errors.New("want: wait, connect PATH, or tail PATH OFFSET")
}

func connect(ctx context.Context, path string, in io.Reader, out io.Writer) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("connect to the socket: %w", err)
	}
	defer conn.Close()
	// The other copy ends with the process, since a read of stdin cannot be interrupted.
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, in)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
