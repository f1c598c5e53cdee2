package mesh

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/topology"
)

// signer is a CA of people for tests.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "people"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	pair := s.issue(t, template)
	s.cert, s.key = pair.Leaf, pair.PrivateKey.(crypto.Signer)
	return s
}

func (s *signer) issue(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	parent, by := s.cert, s.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (s *signer) person(t *testing.T, ends time.Duration, usage x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	c := s.issue(t, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "mira.keller", OrganizationalUnit: []string{"person"}},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(ends), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	})
	return &c
}

// place writes a fresh server certificate of s into dir, and says its serial number.
func (s *signer) place(t *testing.T, dir string) string {
	t.Helper()
	return s.named(t, dir, "localhost")
}

func (s *signer) named(t *testing.T, dir, name string) string {
	t.Helper()
	c := s.issue(
		t,
		&x509.Certificate{
			DNSNames:    []string{name},
			NotAfter:    time.Now().Add(time.Hour),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		},
	)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		peopleChain: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, peopleKey: {Type: "PRIVATE KEY", Bytes: key},
		peopleClients: {Type: "CERTIFICATE", Bytes: s.cert.Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c.Leaf.SerialNumber.String()
}

func TestPeopleMayShowACertificateOfTheirCAAndOfNoOther(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	dir, people := t.TempDir(), newSigner(t)
	n := lone(t, "a", domainCA(t))
	n.self.WebTLS, n.cfg.Host, n.cfg.PeopleTLS = port, "127.0.0.1", dir
	n.people = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := PersonOf(r)
		fmt.Fprintf(w, "%s %s %v", c.Name, c.Role, ok)
		if ok && (c.Serial == "" || !c.Begins.Before(time.Now().Add(-time.Hour)) || !c.Ends.After(time.Now())) {
			t.Errorf("certificate %+v, want when it begins and ends", c)
		}
	})
	if err := newPeoplePorts(n).serveTLS(t.Context()); err == nil {
		t.Fatal("it serves without a certificate")
	}
	people.place(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- newPeoplePorts(n).serveTLS(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(people.cert)
	visit := func(show *tls.Certificate, newest uint16) (body, serial string, err error) {
		config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12, MaxVersion: newest}
		if show != nil { // also where the server would not ask for one of that CA
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show, nil }
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true,
			ForceAttemptHTTP2: true}, Timeout: 5 * time.Second}
		resp, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/", port))
		if err != nil {
			return "", "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), resp.TLS.PeerCertificates[0].SerialNumber.String(), err
	}
	deadline := time.After(5 * time.Second)
	for {
		if _, _, err := visit(nil, tls.VersionTLS13); err == nil || !strings.Contains(err.Error(), "connection refused") {
			break
		}
		select {
		case <-deadline:
			t.Fatal("no listener")
		case <-time.After(10 * time.Millisecond):
		}
	}
	for _, c := range []struct {
		name   string
		show   *tls.Certificate
		newest uint16
		want   string // empty: no session
	}{
		{"nothing", nil, tls.VersionTLS13, "  false"},
		{"a person's", people.person(t, time.Hour, x509.ExtKeyUsageClientAuth), tls.VersionTLS13, "mira.keller person true"},
		{"one that has ended", people.person(t, -time.Hour, x509.ExtKeyUsageClientAuth), tls.VersionTLS13, ""},
		{"a server's", people.person(t, time.Hour, x509.ExtKeyUsageServerAuth), tls.VersionTLS13, ""},
		{"one of another CA", newSigner(t).person(t, time.Hour, x509.ExtKeyUsageClientAuth), tls.VersionTLS13, ""},
		{"nothing, by TLS 1.2", nil, tls.VersionTLS12, ""},
	} {
		body, _, err := visit(c.show, c.newest)
		if body != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v; want %q", c.name, body, err, c.want)
		}
	}
	serial := people.place(t, dir)
	if _, now, err := visit(nil, tls.VersionTLS13); err != nil || now != serial {
		t.Errorf("after a renewal the server shows %s, want %s (%v)", now, serial, err)
	}
}

func TestARoomIsServedWhereItIsSaid(t *testing.T) {
	for listen, want := range map[string]string{"": "127.0.0.3:8443", "0.0.0.0": "0.0.0.0:8443",
		"10.1.2.3:9443": "10.1.2.3:9443", "::": "[::]:8443", "[::]:9443": "[::]:9443"} {
		n := &Node{self: topology.Workload{WebTLS: 8443}, cfg: Config{Host: "127.0.0.3", PeopleListen: listen}}
		if got := newPeoplePorts(n).address(); got != want {
			t.Errorf("listen %q: %s, want %s", listen, got, want)
		}
	}
}
