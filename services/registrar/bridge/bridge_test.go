package bridge_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/services/registrar/bridge"
)

// listen answers one connection with f.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		f(c)
	}()
	return path
}

func TestWhatIsWrittenArrivesAndTheAnswerComesBack(t *testing.T) {
	path := listen(t, func(c net.Conn) {
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Error(err)
		}
		if _, err := c.Write([]byte("heard " + string(b))); err != nil {
			t.Error(err)
		}
	})
	in, say := io.Pipe() // stays open: the bridge ends because the socket does
	defer say.Close()
	go say.Write([]byte("hello"))
	var out bytes.Buffer
	if err := bridge.Run(t.Context(), []string{"connect", path}, in, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "heard hello" {
		t.Errorf("got %q", out.String())
	}
}

func TestTheEndOfTheInputEndsTheBridgeThoughTheSocketStays(t *testing.T) {
	ended := make(chan struct{})
	path := listen(t, func(c net.Conn) {
		io.Copy(io.Discard, c) // until the bridge hangs up
		close(ended)
	})
	if err := bridge.Run(t.Context(), []string{"connect", path}, strings.NewReader("x"), io.Discard); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- bridge.Run(ctx, []string{"wait"}, strings.NewReader(""), io.Discard) }()
	select {
	case err := <-done:
		t.Fatalf("ended by itself: %v", err)
	default:
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAnythingElseIsRefusedWithWhatIsWanted(t *testing.T) {
	for _, args := range [][]string{nil, {"connect"}, {"wait", "x"}, {"/etc/passwd"}} {
		if err := bridge.Run(t.Context(), args, strings.NewReader(""), io.Discard); err == nil ||
			!strings.Contains(err.Error(), "want: wait, connect PATH, or tail PATH OFFSET") {
			t.Errorf("%v: %v", args, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "nobody")
	if err := bridge.Run(t.Context(), []string{"connect", missing}, strings.NewReader(""), io.Discard); err == nil ||
		!strings.Contains(err.Error(), "connect to the socket") {
		t.Errorf("got %v", err)
	}
}
