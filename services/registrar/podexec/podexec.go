// Package podexec turns a command in a pod into a network connection: writes go to its standard input, and reads come
// from its standard output.
package podexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// Dial returns a dialer for grpc.WithContextDialer that starts command in a container and returns its standard streams
// as a connection; the address is ignored. It does not wait for the command: if the command cannot run or fails, Read
// and Write return the error, with its standard error output. ctx limits only the preparation. Close ends the command's
// input, and the stream shortly after.
func Dial(config *rest.Config, namespace, pod, container string, command ...string) func(ctx context.Context,
	_ string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		run, err := executor(config, namespace, pod, &v1.PodExecOptions{Container: container, Command: command, Stdin: true,
			Stdout: true, Stderr: true})
		if err != nil {
			return nil, fmt.Errorf("exec in %s/%s: %w", namespace, pod, err)
		}
		return open(ctx, fmt.Sprintf("exec in %s/%s", namespace, pod), run), nil
	}
}

// executor uses websocket, and SPDY if the server or a proxy refuses it, like kubectl.
func executor(config *rest.Config, namespace, pod string, options *v1.PodExecOptions) (remotecommand.Executor, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion, config.NegotiatedSerializer = "/api", &v1.SchemeGroupVersion,
		scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	url := client.Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").VersionedParams(options,
		scheme.ParameterCodec).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, url.String())
	if err != nil {
		return nil, err
	}
	spdy, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, url)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// linger is how long a stream may take to end after its input has ended.
const linger = 2 * time.Second

// conn is one end of a pipe; a command uses the other end.
type conn struct {
	net.Conn
	what   string
	ended  chan struct{} // closed when the command has ended
	err    error         // why, once ended
	cancel context.CancelFunc
	once   sync.Once
}

func open(ctx context.Context, what string, run remotecommand.Executor) net.Conn {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a dialer's context ends before its connection
	c := &conn{Conn: near, what: what, ended: make(chan struct{}), cancel: cancel}
	go func() {
		defer cancel()
		said := &tail{}
		err := run.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input{far}, Stdout: far, Stderr: said})
		switch text := said.String(); {
		case text != "" && err != nil:
			c.err = fmt.Errorf("%s: %w: %s", what, err, text)
		case text != "":
			c.err = fmt.Errorf("%s: %s", what, text)
		case err != nil:
			c.err = fmt.Errorf("%s: %w", what, err)
		}
		close(c.ended)
		far.Close()
	}()
	return c
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		<-c.ended
		if c.err != nil {
			err = c.err
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		select {
		case <-c.ended:
			if c.err != nil {
				err = c.err
			}
		default: // closed on this side
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		timer := time.AfterFunc(linger, c.cancel)
		go func() {
			<-c.ended
			timer.Stop()
		}()
	})
	return c.Conn.Close()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return address(c.what) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return address(c.what) }

// input is the standard input of a command. Its end is not an error, whichever side causes it.
type input struct{ from io.Reader }

// Read implements io.Reader.
func (i input) Read(b []byte) (int, error) {
	n, err := i.from.Read(b)
	if errors.Is(err, io.ErrClosedPipe) {
		err = io.EOF
	}
	return n, err
}

// address is the name of a connection without a network address.
type address string

// Network implements net.Addr.
func (address) Network() string { return "exec" }

// String implements net.Addr.
func (a address) String() string { return string(a) }

// tail keeps the end of a command's standard error output.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-1024):]
	return len(b), nil
}

// String is the kept text on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}
