package mesh

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.org/security-training/services/audit"
)

func TestBrowsersAreAnsweredForKnownHostsAlone(t *testing.T) {
	dir := t.TempDir()
	newSigner(t).place(t, dir) // for localhost
	lab, cluster := lone(t, "a", domainCA(t)), lone(t, "a", domainCA(t))
	lab.cfg.Host, lab.cfg.PeopleTLS, lab.cfg.PeopleListen = "127.0.0.2", dir, "lab.example.org:8443"
	lab.AdmitHost("Training.Example.org")
	cluster.cfg.PeopleHosts = []string{"ingress.example.org"}
	for _, c := range []struct {
		node *Node
		host string
		want int
	}{
		{lab, "127.0.0.2:8080", 204}, {lab, "127.0.0.1", 204}, {lab, "localhost:8080", 204}, {lab, "LOCALHOST.:8080", 204},
		{lab, "mira.localhost:8080", 204}, {lab, "[::1]:8080", 204},
		// the connection's own
		{lab, "lab.example.org:8443", 204}, {lab, "training.example.org", 204}, {lab, "192.0.2.10:8443", 204},
		{lab, "evil.example.net", 421}, {lab, "evil.example.net:8080", 421}, {lab, "localhost.evil.example.net", 421},
		{lab, "127.0.0.1.evil.example.net", 421},
		{lab, "192.0.2.99", 421}, {lab, "a-svc", 421}, {lab, "", 421}, {lab, "xlocalhost", 421}, {lab, "ingress.example.org",
			421},
		{cluster, "ingress.example.org", 204}, {cluster, "a-svc:8080", 204}, {cluster, "a-svc.training", 421},
		{cluster, "a-svc.com", 421}, {cluster, "a-svc.training.svc", 204}, {cluster, "a-svc.training.svc.cluster.local:8080",
			204},
		{cluster, "a-svc.evil.example.net", 421}, {cluster, "b-svc", 421}, {cluster, "localhost:18080", 204},
		{cluster, "10.0.0.9", 421},
	} {
		c.node.people = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		r = r.WithContext(
			context.WithValue(
				r.Context(),
				http.LocalAddrContextKey,
				net.Addr(&net.TCPAddr{IP: net.ParseIP("192.0.2.10"), Port: 8443}),
			),
		)
		w := httptest.NewRecorder()
		newPeoplePorts(c.node).server().Handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("for %q: %d, want %d", c.host, w.Code, c.want)
		}
	}
	lab.refusals.close()
	if err := lab.audit.Close(); err != nil {
		t.Fatal(err)
	}
	tip, err := audit.Tip(lab.cfg.AuditFile)
	if err != nil || tip.Reason != string(UnknownHost) {
		t.Errorf("the chain ends with %+v, %v", tip, err)
	}
}

func TestTheNamesOfThePeoplesCertificateAreKnown(t *testing.T) {
	dir, people := t.TempDir(), newSigner(t)
	n := lone(t, "a", domainCA(t))
	n.cfg.PeopleTLS = dir
	ports := newPeoplePorts(n)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "room.example.org:8443"
	if ports.isKnownHost(r) {
		t.Error("without a certificate, a name is known")
	}
	ports.leafAt = ports.leafAt.Add(-leafCachedFor)
	people.named(t, dir, "room.example.org")
	ports.leaf = nil
	if !ports.isKnownHost(r) {
		t.Error("the certificate's name is not known")
	}
	if r.Host = "other.example.org"; ports.isKnownHost(r) {
		t.Error("another name is known")
	}
}
