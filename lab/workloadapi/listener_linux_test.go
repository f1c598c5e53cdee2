package workloadapi

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"example.org/security-training/services/mesh/authority"
)

const stranger = 4242 // a uid of no workload

// Other users of the machine open as many connections as they can. Each one gets a few, all together get some, and a
// workload still gets its identity.
func TestStrangersConnectionsLeaveRoomForTheLabsOwn(t *testing.T) {
	issuer, err := New(
		spiffeid.RequireTrustDomainFromString("example.org"),
		nil,
		func([]*authority.CA) error { return nil },
	)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "api.sock")
	l := listen(t, socket, func(uid int) bool { return uid == os.Geteuid() })
	run(t, issuer, l)
	register(t, issuer, self)
	got := 0
	for range 20_000 {
		if l.admit(stranger) {
			got++
		}
	}
	if got != mostOfAStranger {
		t.Errorf("one stranger has %d connections, want %d", got, mostOfAStranger)
	}
	for uid := stranger + 1; uid < stranger+20_000; uid++ {
		if l.admit(uid) {
			got++
		}
	}
	if got != mostOfStrangers {
		t.Errorf("all strangers have %d connections, want %d", got, mostOfStrangers)
	}
	if _, err := fetch(t, client(t, "unix://"+socket), asking(t, "true")).Recv(); err != nil {
		t.Errorf("a workload gets no identity while strangers wait: %v", err)
	}
	l.leave(stranger)
	if !l.admit(stranger) {
		t.Error("there is no room again when a connection is closed")
	}
}

// The limit holds on the real socket, and a closed connection makes room.
func TestAConnectionTooManyIsClosedAndAClosedOneMakesRoom(t *testing.T) {
	issuer, err := New(
		spiffeid.RequireTrustDomainFromString("example.org"),
		nil,
		func([]*authority.CA) error { return nil },
	)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "api.sock")
	l := listen(t, socket, func(int) bool { return false })
	run(t, issuer, l)
	open := make([]net.Conn, 0, mostOfAStranger)
	for range mostOfAStranger {
		c := dial(t, socket)
		await(t, "the server's greeting", func() bool { return firstByte(c) == nil })
		open = append(open, c)
	}
	for range 100 {
		if err := firstByte(dial(t, socket)); !errors.Is(err, io.EOF) && !isReset(err) {
			t.Fatalf("a connection too many: %v, want it to be closed", err)
		}
	}
	open[0].Close()
	await(t, "room", func() bool { return firstByte(dial(t, socket)) == nil })
}

// A client that sends nothing is disconnected.
func TestAConnectionThatSaysNothingIsClosed(t *testing.T) {
	t.Parallel()
	issuer, err := New(
		spiffeid.RequireTrustDomainFromString("example.org"),
		nil,
		func([]*authority.CA) error { return nil },
	)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "api.sock")
	run(t, issuer, listen(t, socket, func(int) bool { return true }))
	c := dial(t, socket)
	if err := c.SetReadDeadline(time.Now().Add(4 * greeting)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
		t.Errorf("after %s: %v, want the end", 4*greeting, err)
	}
}

func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// firstByte waits for the first byte of HTTP/2's settings, which the server sends to a client that it admits.
func firstByte(c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return io.EOF // it is closed already
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	patience := time.After(20 * time.Second)
	for !is() {
		select {
		case <-patience:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
