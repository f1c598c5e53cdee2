package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"example.org/security-training/services/topology"
)

// bodyBytes is how long a request's body is.
const bodyBytes = 1 << 10

// answering answers a request with the checksum of its body, and counts the requests.
type answering struct{ requests atomic.Int64 }

func (a *answering) serve(w http.ResponseWriter, r *http.Request) error {
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, http.MaxBytesReader(w, r.Body, 2*bodyBytes)); err != nil {
		return err
	}
	a.requests.Add(1)
	_, err := io.WriteString(w, strconv.FormatUint(uint64(sum.Sum32()), 10))
	return err
}

// requests compares 1 KB posted over a kept connection of the mesh, where policy decides each request and the audit is
// written to a file, with the same handler by plain HTTP over kept connections.
func requests(ctx context.Context, s *stage) (*contest, error) {
	var inside, plain answering
	p, err := newPair(ctx, inside.serve)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := plain.serve(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	client := &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: atOnce, DisableCompression: true},
		Timeout:   10 * time.Second,
	}

	body := bytes.Repeat([]byte("sixteen letters!"), bodyBytes/16)
	want := strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10)
	const text = "text/plain"
	read := func(resp *http.Response) error {
		got, err := drain(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || string(got) != want) {
			err = fmt.Errorf("%s with %q, want %q", resp.Status, got, want)
		}
		return err
	}
	byMesh := func(ctx context.Context) error {
		resp, err := p.nodes[caller].Peer(callee).Post(ctx, p.route.Path(), text, body)
		if err != nil {
			return err
		}
		if resp.ProtoMajor != 2 {
			return errors.Join(fmt.Errorf("the mesh answered by %s, want HTTP/2", resp.Proto), resp.Body.Close())
		}
		return read(resp)
	}
	url := "http://" + listener.Addr().String() + p.route.Path()
	byHTTP := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", text)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return read(resp)
	}
	n := s.size.requests
	return &contest{
		ours: side{n, func(ctx context.Context) (int, float64, error) { return concurrently(ctx, n, byMesh) }},
		peer: &side{n, func(ctx context.Context) (int, float64, error) { return concurrently(ctx, n, byHTTP) }},
		check: func(ctx context.Context) (string, error) {
			for name, a := range map[string]*answering{"the mesh's": &inside, "the peer's": &plain} {
				if got := a.requests.Swap(0); got != int64(n) {
					return fmt.Sprintf("%s handler answered %d of %d", name, got, n), nil
				}
			}
			outcomes, err := p.decided(ctx, n)
			if got := outcomes[string(topology.Allowed)]; err == nil && (got != n || len(outcomes) != 1) {
				return fmt.Sprintf("the audit's file has %v, want %d %s", outcomes, n, topology.Allowed), nil
			}
			return "", err
		},
		end: func() error {
			client.CloseIdleConnections()
			err := server.Close()
			if stopped := <-served; !errors.Is(stopped, http.ErrServerClosed) {
				err = errors.Join(err, stopped)
			}
			return errors.Join(err, p.close())
		},
	}, nil
}
