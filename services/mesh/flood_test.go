package mesh

import (
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

// Beyond so many handshakes at once a connection is closed unheard, and that is written down.
func TestAConnectionBeyondThoseThatShakeHandsIsClosedAndRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lone(t, "a", domainCA(t))
		l := newPipes()
		d := &handshaker{
			Listener: l, port: newMeshPort(n), admitted: make(chan *connection),
			slots: make(chan struct{}, 2), done: make(chan struct{}),
		}
		ended := make(chan struct{})
		go func() { defer close(ended); d.accept() }()
		var conns []net.Conn
		for range 3 { // none of them says anything
			conns = append(conns, l.dial())
			synctest.Wait()
		}
		if _, err := conns[2].Read(make([]byte, 1)); err == nil {
			t.Error("the third of two is not closed")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
		for _, c := range conns {
			c.Close()
		}
		synctest.Wait()
		if err := n.audit.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(n.cfg.AuditFile)
		if err != nil || strings.Count(string(text), `"`+string(Flooded)+`"`) != 1 {
			t.Errorf("recorded %s (%v), want one %s", text, err, Flooded)
		}
	})
}
