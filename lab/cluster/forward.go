package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// forwarder forwards connections on this machine to pods through the API server, as `kubectl port-forward` does. Unlike
// that, it follows a workload from pod to pod; if a pod cannot be reached, it closes the connection and keeps
// listening.
type forwarder struct {
	config *rest.Config
	client kubernetes.Interface
	pod    func(workload string) *v1.Pod // a running pod of the workload, or nil
	log    *slog.Logger

	requests atomic.Int64

	mu    sync.Mutex
	conns map[string]*podConn // by the pod's UID
}

// podConn is one connection to a pod, which carries many streams.
type podConn struct {
	once sync.Once
	conn httpstream.Connection
	err  error

	// guarded by forwarder.mu
	users int
	left  bool // not used for new streams; the last user closes it
}

// listen forwards every connection to addr to a port of a workload, until ctx ends.
func (f *forwarder) listen(ctx context.Context, addr, workload string, port int) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("forward %s to %s: %w", addr, workload, err)
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // for example too many open files, which may pass
				f.log.Warn("forward", "workload", workload, "error", err.Error())
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			go func() {
				defer conn.Close()
				if err := f.carry(ctx, conn, workload, port); err != nil {
					f.log.Debug("forward", "workload", workload, "error", err.Error())
				}
			}()
		}
	}()
	return nil
}

// carry copies in both directions until one side has ended.
func (f *forwarder) carry(ctx context.Context, conn net.Conn, workload string, port int) error {
	pod := f.pod(workload)
	if pod == nil {
		return errors.New("no pod of it is running")
	}
	r, err := f.connTo(pod)
	if err != nil {
		return err
	}
	defer f.release(r)
	headers := http.Header{}
	headers.Set(v1.StreamType, v1.StreamTypeError)
	headers.Set(v1.PortHeader, strconv.Itoa(port))
	headers.Set(v1.PortForwardRequestIDHeader, strconv.FormatInt(f.requests.Add(1), 10))
	complaint, err := r.conn.CreateStream(headers)
	if err != nil {
		f.retire(pod, r)
		return err
	}
	complaint.Close() // nothing is written to the error stream
	defer r.conn.RemoveStreams(complaint)
	headers.Set(v1.StreamType, v1.StreamTypeData)
	stream, err := r.conn.CreateStream(headers)
	if err != nil {
		f.retire(pod, r)
		return err
	}
	defer r.conn.RemoveStreams(stream)
	said := make(chan error, 1)
	go func() {
		text, err := io.ReadAll(complaint)
		if len(text) > 0 {
			err = fmt.Errorf("%s", text)
		}
		said <- err
	}()
	remote, local := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(remote)
		_, _ = io.Copy(conn, stream) // connections end with errors of either side
	}()
	go func() {
		defer close(local)
		defer stream.Close() // tells the pod that no more comes
		_, _ = io.Copy(stream, conn)
	}()
	select {
	case <-remote:
	case <-local:
		select { // the rest of what the pod sends
		case <-remote:
		case <-time.After(5 * time.Second):
		}
	case <-ctx.Done():
	}
	select {
	case err = <-said:
	case <-time.After(time.Second): // it sends nothing more
	}
	// After an error the connection may hang. kubectl closes it; here only its present users keep it.
	if err != nil {
		f.retire(pod, r)
	}
	_ = stream.Reset()
	return err
}

// connTo returns the connection to the pod, or makes one. The caller must call release.
func (f *forwarder) connTo(pod *v1.Pod) (*podConn, error) {
	key := string(pod.UID)
	f.mu.Lock()
	if f.conns == nil {
		f.conns = map[string]*podConn{}
	}
	r := f.conns[key]
	if r == nil {
		r = &podConn{}
		f.conns[key] = r
	}
	r.users++
	f.mu.Unlock()
	r.once.Do(func() {
		conn, err := f.dial(pod)
		f.mu.Lock()
		r.conn, r.err = conn, err
		f.mu.Unlock()
		if err == nil {
			go func() {
				<-conn.CloseChan()
				f.retire(pod, r)
			}()
		}
	})
	if r.err != nil {
		f.retire(pod, r)
		f.release(r)
		return nil, r.err
	}
	return r, nil
}

// retire makes the next caller of connTo get a new connection.
func (f *forwarder) retire(pod *v1.Pod, r *podConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.left = true
	if f.conns[string(pod.UID)] == r {
		delete(f.conns, string(pod.UID))
	}
}

// release releases a connection. The last user of one that was left closes it.
func (f *forwarder) release(r *podConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.users--
	if r.left && r.users == 0 && r.conn != nil {
		r.conn.Close()
	}
}

func (f *forwarder) dial(pod *v1.Pod) (httpstream.Connection, error) {
	url := f.client.CoreV1().
		RESTClient().
		Post().
		Resource("pods").
		Namespace(pod.Namespace).
		Name(pod.Name).
		SubResource("portforward").
		URL()
	transport, upgrader, err := spdy.RoundTripperFor(f.config)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, f.config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialerForStreaming(tunnel, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	conn, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	if protocol != portforward.PortForwardProtocolV1Name {
		conn.Close()
		return nil, fmt.Errorf("the API server speaks %q", protocol)
	}
	return conn, nil
}
