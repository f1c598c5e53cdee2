package e2e

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab/local"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
)

// room is the host and port for people with certificates.
func room(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(l.st.Room)
	if err != nil || u.Scheme != "https" {
		t.Fatalf("the lab's room is %q: %v", l.st.Room, err)
	}
	return u.Host
}

func TestPeopleAndWorkloadsAreOfDifferentCAs(t *testing.T) {
	who := troubled(t).Person
	c, err := l.Certify(t.Context(), who, "person")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509svidOf(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	// A person's certificate is no identity in the mesh …
	for _, callee := range []string{
		serving(t, generate), named(t, topology.KindDashboard, ""), named(t, topology.KindScorer, ""),
	} {
		if r := probe.Once(t.Context(), addr(t, callee), probe.Caller{SVID: leaf}, generate); r.Outcome != topology.Refused ||
			r.Status != 0 {
			t.Errorf("a person's certificate at %s: %+v, want Refused", callee, r)
		}
	}
	// … and a workload's certificate is no identity at the port for people. A caller without a certificate can only see
	// the sign-in page there.
	svid, _, err := l.Mint(t.Context(), l.topo.ID(named(t, topology.KindDashboard, "")), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	const door topology.Route = "GET /sign-in"
	for _, x := range []struct {
		name   string
		caller probe.Caller
		status int
	}{
		{"no certificate", probe.Caller{}, 200}, {"a person's", probe.Caller{SVID: leaf}, 200},
		{"a workload's", probe.Caller{SVID: svid}, 0}, {"TLS 1.2", probe.Caller{Manner: probe.TLS12}, 0},
	} {
		if r := probe.Once(t.Context(), room(t), x.caller, door); r.Status != x.status {
			t.Errorf("%s at the people's door: %d, want %d (%v)", x.name, r.Status, x.status, r.Err)
		}
	}
	if info, err := os.Stat(filepath.Join(string(l.StateDir()), "people-ca.pem")); err != nil ||
		info.Mode().Perm() != 0o600 {
		t.Errorf("the people's CA: %v, %v; want a file that its owner alone may read", info, err)
	}
}

// x509svidOf puts a person's certificate into the type that a probe takes. The certificate is no SVID.
func x509svidOf(cert, key []byte) (*x509svid.SVID, error) {
	c, _ := pem.Decode(cert)
	k, _ := pem.Decode(key)
	if c == nil || k == nil {
		return nil, errors.New("want a certificate and a key in PEM")
	}
	leaf, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{Certificates: []*x509.Certificate{leaf}, PrivateKey: private.(crypto.Signer)}, nil
}

func TestAPersonSignsInToChromiumByCertificate(t *testing.T) {
	program := needtest.Browser(t)
	needtest.Certutil(t)
	const policies = "/etc/chromium/policies/managed"
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Policies, "only root can tell chromium, by policy, to show a certificate without asking")
	}
	who := troubled(t).Person
	dir, home := t.TempDir(), t.TempDir()
	out, err := command(t.Context(), l.name, "open", "--certificate", who, "--to", dir).stdout()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Split(strings.TrimSpace(out), "\t")
	if len(fields) != 3 || fields[0] != who {
		t.Fatalf("open --certificate printed %q", out)
	}
	if info, err := os.Stat(fields[1]); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the certificate's file: %v, %v", info, err)
	}
	authority, err := l.Certify(t.Context(), who, "person")
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, authority.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, step := range [][]string{
		{"certutil", "-N", "--empty-password", "-d", "sql:" + store},
		{"certutil", "-A", "-d", "sql:" + store, "-n", "people", "-t", "C,,", "-i", ca},
		{"pk12util", "-i", fields[1], "-W", fields[2], "-K", "", "-d", "sql:" + store},
	} {
		if out, err := exec.CommandContext(t.Context(), step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", step[0], err, out)
		}
	}
	filter, err := json.Marshal(map[string]any{"pattern": l.st.Room, "filter": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := json.Marshal(map[string][]string{"AutoSelectCertificateForUrls": {string(filter)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(policies, 0o755); err != nil {
		needtest.Lacks(t, needtest.Policies, "chromium's policies cannot be written here: %v", err)
	}
	file := filepath.Join(policies, l.name+".json")
	if err := os.WriteFile(file, policy, 0o644); err != nil {
		needtest.Lacks(t, needtest.Policies, "chromium's policies cannot be written here: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})

	alloc, cancel := chromedp.NewExecAllocator(t.Context(), append(
		chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(
			program,
		),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.WindowSize(1280, 900),
		chromedp.Env("HOME="+home),
		chromedp.Flag(
			"disable-quic",
			true,
		),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.*"),
	)...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, slack(time.Minute, 4*time.Minute))
	t.Cleanup(cancel)
	do(t, ctx, chromedp.Navigate(l.st.Room+"/sign-in"), chromedp.WaitVisible(css("#certificate")))
	if text := now(t, ctx, "#certificate"); !strings.Contains(text, who) {
		t.Errorf("the door offers %q, want %s", text, who)
	}
	shoot(t, ctx, "signin-certificate")
	do(t, ctx, chromedp.Click(css("#certificate")), chromedp.WaitVisible(css(`form[action="/sign-out"]`)))
	if place := see(t, ctx, chromedp.Location()); place != l.st.Room+"/" {
		t.Errorf("signed in at %s, want %s/", place, l.st.Room)
	}
	if text := now(t, ctx, "main"); !strings.Contains(text, "risk") && !strings.Contains(text, "Risk") {
		t.Errorf("the first page says nothing of risk: %q", text)
	}
	do(t, ctx, chromedp.Click(css(`form[action="/sign-out"] button`)), chromedp.WaitVisible(css("#certificate")))
}

func TestARoomGetsTheDashboardByHTTPSAndNothingElse(t *testing.T) {
	const host = "127.77.0.1"
	name := l.name + "-r"
	out, err := command(
		t.Context(),
		name,
		"up",
		"--runtime",
		local.RuntimeName,
		"--people",
		"5",
		"--days",
		"1",
		"--listen",
		host+":9443",
	).run()
	t.Cleanup(func() {
		if out, err := command(context.WithoutCancel(t.Context()), name, "down").run(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	if err != nil {
		t.Fatalf("up --listen: %v\n%s", err, out)
	}
	if !strings.Contains(out, "https://"+host+":9443") {
		t.Errorf("up --listen does not say where a room comes in:\n%s", out)
	}
	const door topology.Route = "GET /sign-in"
	if r := probe.Once(t.Context(), host+":9443", probe.Caller{}, door); r.Status != 200 {
		t.Errorf("the room's door: %+v", r)
	}
	for _, w := range l.topo.Workloads {
		for _, port := range []int{w.Port, w.Health, w.Web, w.WebTLS} {
			if port == 0 {
				continue
			}
			if c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), time.Second); err == nil {
				c.Close()
				t.Errorf("port %d of %s is open to the room, too", port, w.Name)
			}
		}
	}
	class := filepath.Join(t.TempDir(), "class")
	if err := os.WriteFile(
		class, []byte(people.Company(l.st.Spec.Seed, 5, people.Published)[0].ID+"\n"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	links, err := command(t.Context(), name, "open", "--class", class).stdout()
	if err != nil || !strings.Contains(links, "\thttps://"+host+":9443/sign-in?token=") {
		t.Errorf("open --class: %q, %v", links, err)
	}
}

// certified is a client with a certificate. It keeps cookies and its connection, and follows no redirects.
type certified struct {
	*http.Client
	t      *testing.T
	serial string
	dialed int // connections so far
}

func newCertified(t *testing.T, who string) *certified {
	t.Helper()
	pair, err := l.Certify(t.Context(), who, "person")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509svidOf(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &certified{t: t, serial: fmt.Sprintf("%x", leaf.Certificates[0].SerialNumber)}
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		c.dialed++
		return probe.Open(ctx, addr, probe.Caller{SVID: leaf})
	}}
	t.Cleanup(transport.CloseIdleConnections)
	c.Client = &http.Client{
		Jar:           jar,
		Transport:     transport,
		Timeout:       slack(10*time.Second, 30*time.Second),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

func (c *certified) visit(method, path string) (int, string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, l.st.Room+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	resp, err := c.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestARevokedCertificateIsRefusedOnALiveConnectionAndANewOneWorks(t *testing.T) {
	who, lms := troubled(t).Person, named(t, topology.KindDashboard, "")
	old, spare := newCertified(t, who), newCertified(t, who)
	if status, body := old.visit("POST", "/sign-in/certificate"); status != http.StatusSeeOther {
		t.Fatalf("sign in by certificate: %d %s", status, body)
	}
	if status, _ := old.visit("GET", "/training"); status != http.StatusOK || old.dialed != 1 {
		t.Fatalf("signed in: %d, by %d connections; want 200 by 1", status, old.dialed)
	}
	out, err := command(t.Context(), l.name, "open", "--certificate", who, "--revoke").stdout()
	if err != nil || !strings.HasPrefix(out, who+"\trevoked\t") {
		t.Fatalf("open --certificate --revoke: %q, %v", out, err)
	}
	fresh := newCertified(t, who) // at once: what is issued after the answer is good
	refused := func(c *certified, name, method, path string) {
		t.Helper()
		if status, body := c.visit(method, path); status != http.StatusForbidden ||
			!strings.Contains(body, `data-code="certificate_revoked"`) {
			t.Errorf("%s: %d, want 403 and why: %s", name, status, body)
		}
		awaitAudit(t, lms, name, func(e audit.Entry) bool {
			return e.Reason == "certificate_revoked" && e.Person == who && e.Serial == c.serial && e.Route == method+" "+path
		})
	}
	refused(old, "its session, on the open connection", "GET", "/training")
	if old.dialed != 1 {
		t.Errorf("%d connections, want the one of before", old.dialed)
	}
	refused(old, "its owner at the door", "GET", "/sign-in")
	if old.dialed != 2 {
		t.Errorf("%d connections: the refusal was to end the first", old.dialed)
	}
	refused(spare, "another of before, never used", "POST", "/sign-in/certificate")
	if status, body := fresh.visit("POST", "/sign-in/certificate"); status != http.StatusSeeOther {
		t.Errorf("one of afterwards: %d %s", status, body)
	}
	if status, _ := fresh.visit("GET", "/training"); status != http.StatusOK {
		t.Errorf("its session: %d", status)
	}
	awaitAudit(t, "supervisor", "the revocation", func(e audit.Entry) bool {
		return e.Kind == "certificate" && e.Person == who && strings.HasPrefix(e.Detail, "to be revoked, as person")
	})

	if err := l.Restart(t.Context(), lms); err != nil {
		t.Fatal(err)
	}
	awaitHealthy(t)
	again := newCertified(t, who)
	old.CloseIdleConnections()
	fresh.CloseIdleConnections()
	refused(old, "after a restart", "GET", "/verify")
	for name, c := range map[string]*certified{"one of afterwards": fresh, "one of after that": again} {
		if status, body := c.visit("POST", "/sign-in/certificate"); status != http.StatusSeeOther {
			t.Errorf("%s, after a restart: %d %s", name, status, body)
		}
	}
	if _, err := command(t.Context(), l.name, "open", who, "--revoke").stdout(); code(err) != 2 {
		t.Errorf("--revoke without --certificate: %v, want exit code 2", err)
	}
	out, err = command(t.Context(), l.name, "open", "--certificate", "no.body", "--revoke").run()
	if err == nil || !strings.Contains(out, `the roster has no "no.body"`) {
		t.Errorf("revoke the certificate of an unknown person: %v, want an error that says so: %s", err, out)
	}
}
