package workloadapi

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"example.org/security-training/manifests"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const self = "lms" // the workload as which this test's own process is registered

// start makes an issuer that serves on a unix socket, and a client of it.
func start(t *testing.T) (*Issuer, string, workload.SpiffeWorkloadAPIClient) {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := New(topo.Domain(), nil, func([]*authority.CA) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "api.sock")
	l := listen(t, socket, func(int) bool { return true })
	run(t, issuer, l)
	return issuer, "unix://" + socket, client(t, "unix://"+socket)
}

func listen(t *testing.T, socket string, own func(uid int) bool) *Listener {
	t.Helper()
	l, err := Listen(socket, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func run(t *testing.T, issuer *Issuer, l net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- issuer.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func client(t *testing.T, target string) workload.SpiffeWorkloadAPIClient {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return workload.NewSpiffeWorkloadAPIClient(conn)
}

// register makes this process a workload.
func register(t *testing.T, issuer *Issuer, name string) {
	t.Helper()
	if err := issuer.Start(name, func() (int, error) { return os.Getpid(), nil }); err != nil {
		t.Fatal(err)
	}
}

// asking is a context with the security header.
func asking(t *testing.T, values ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	for _, v := range values {
		ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", v)
	}
	return ctx
}

type stream = grpc.ServerStreamingClient[workload.X509SVIDResponse]

func fetch(t *testing.T, c workload.SpiffeWorkloadAPIClient, ctx context.Context) stream {
	t.Helper()
	s, err := c.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// receive reads one answer: the SVID, and the authorities of the bundle.
func receive(t *testing.T, s stream) (*x509svid.SVID, []*x509.Certificate) {
	t.Helper()
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Svids) != 1 {
		t.Fatalf("%d SVIDs, want one", len(r.Svids))
	}
	svid, err := x509svid.ParseRaw(r.Svids[0].X509Svid, r.Svids[0].X509SvidKey)
	if err != nil {
		t.Fatal(err)
	}
	if r.Svids[0].SpiffeId != svid.ID.String() {
		t.Errorf("the answer says %s, the certificate %s", r.Svids[0].SpiffeId, svid.ID)
	}
	bundle, err := x509.ParseCertificates(r.Svids[0].Bundle)
	if err != nil {
		t.Fatal(err)
	}
	return svid, bundle
}

func signedBy(t *testing.T, svid *x509svid.SVID, ca *x509.Certificate) bool {
	t.Helper()
	return svid.Certificates[0].CheckSignatureFrom(ca) == nil
}

func wantCode(t *testing.T, s stream, want codes.Code) {
	t.Helper()
	if r, err := s.Recv(); status.Code(err) != want {
		t.Errorf("%v %v, want %s", r, err, want)
	}
}

func TestRegisteredProcessGetsItsOwnIdentity(t *testing.T) {
	issuer, _, c := start(t)
	register(t, issuer, self)
	svid, bundle := receive(t, fetch(t, c, asking(t, "true")))
	if svid.ID.Path() != "/"+self || len(bundle) != 1 || !signedBy(t, svid, bundle[0]) {
		t.Errorf("%s, %d authorities", svid.ID, len(bundle))
	}
	leaf := svid.Certificates[0]
	if leaf.Subject.CommonName != self || leaf.IsCA || time.Until(leaf.NotAfter) > DefaultTTL {
		t.Errorf("CN %q, CA %v, until %s", leaf.Subject.CommonName, leaf.IsCA, leaf.NotAfter)
	}
	if got := issuer.Issued()[self]; got.Serial != leaf.SerialNumber.Text(16) || !got.Expires.Equal(leaf.NotAfter) {
		t.Errorf("the issuer remembers %+v", got)
	}
}

func TestSecurityHeaderMissingOrFalseIsInvalid(t *testing.T) {
	issuer, _, c := start(t)
	register(t, issuer, self)
	for _, values := range [][]string{nil, {"false"}, {"True"}, {""}, {"true", "true"}, {"false", "true"}} {
		wantCode(t, fetch(t, c, asking(t, values...)), codes.InvalidArgument)
		b, err := c.FetchX509Bundles(asking(t, values...), &workload.X509BundlesRequest{})
		if err == nil {
			_, err = b.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("bundles with %q: %v", values, err)
		}
	}
}

func TestUnknownProcessIsDenied(t *testing.T) {
	issuer, _, c := start(t)
	wantCode(t, fetch(t, c, asking(t, "true")), codes.PermissionDenied)
	// a relative is not the process
	if err := issuer.Start(self, func() (int, error) { return os.Getppid(), nil }); err != nil {
		t.Fatal(err)
	}
	wantCode(t, fetch(t, c, asking(t, "true")), codes.PermissionDenied)
	register(t, issuer, self)
	receive(t, fetch(t, c, asking(t, "true")))
	issuer.Ended(os.Getpid())
	wantCode(t, fetch(t, c, asking(t, "true")), codes.PermissionDenied)
}

func TestAnotherProcessUnderTheSameNumberIsDenied(t *testing.T) {
	issuer, _, c := start(t)
	register(t, issuer, self)
	receive(t, fetch(t, c, asking(t, "true")))
	issuer.mu.Lock()
	p := issuer.processes[int32(os.Getpid())]
	p.started += "1" // the registered process started at another time
	issuer.processes[int32(os.Getpid())] = p
	issuer.mu.Unlock()
	wantCode(t, fetch(t, c, asking(t, "true")), codes.PermissionDenied)
}

func TestCallerOverTCPIsTurnedAway(t *testing.T) {
	issuer, _, _ := start(t)
	register(t, issuer, self)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, issuer, l)
	s, err := client(t, "passthrough:///"+l.Addr().String()).FetchX509SVID(asking(t, "true"), &workload.X509SVIDRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if code := status.Code(err); code != codes.Unavailable {
		t.Errorf("%v, want that there is no connection", err)
	}
}

func TestProcessIsKnownBeforeItCanAsk(t *testing.T) {
	issuer, _, c := start(t)
	answered := make(chan error, 1)
	if err := issuer.Start(self, func() (int, error) {
		go func() {
			s, err := c.FetchX509SVID(asking(t, "true"), &workload.X509SVIDRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			answered <- err
		}()
		select {
		case err := <-answered:
			t.Errorf("answered before the process was registered: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		return os.Getpid(), nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("a call that came at once: %v", err)
	}
	if err := issuer.Start(self, func() (int, error) { return 0, errors.New("no such program") }); err == nil {
		t.Error("a process that did not start is registered")
	}
}

func TestWithdrawnIdentityEndsTheStreamUntilItIsRestored(t *testing.T) {
	issuer, _, c := start(t)
	register(t, issuer, self)
	s := fetch(t, c, asking(t, "true"))
	receive(t, s)
	issuer.Withdraw("risk-scorer") // another workload: this stream goes on
	issuer.Rotate()
	receive(t, s)
	issuer.Withdraw(self)
	wantCode(t, s, codes.PermissionDenied)
	wantCode(t, fetch(t, c, asking(t, "true")), codes.PermissionDenied)
	if _, ok := issuer.Issued()[self]; ok {
		t.Error("a withdrawn identity counts as issued")
	}
	issuer.Restore(self)
	receive(t, fetch(t, c, asking(t, "true")))
}

// sent is a stream that records what is sent, and when.
type sent struct {
	grpc.ServerStreamingServer[workload.X509SVIDResponse]
	ctx   context.Context
	svids chan *x509svid.SVID
}

func (s sent) Context() context.Context { return s.ctx }

func (s sent) Send(r *workload.X509SVIDResponse) error {
	svid, err := x509svid.ParseRaw(r.Svids[0].X509Svid, r.Svids[0].X509SvidKey)
	s.svids <- svid
	return err
}

func TestIdentityIsRenewedAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := New(domain, nil, func([]*authority.CA) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		register(t, issuer, self)
		ctx, cancel := context.WithCancel(
			metadata.NewIncomingContext(t.Context(), metadata.Pairs("workload.spiffe.io", "true")),
		)
		ctx = peer.NewContext(ctx, &peer.Peer{AuthInfo: credential{int32(os.Getpid())}})
		out := sent{ctx: ctx, svids: make(chan *x509svid.SVID)}
		done := make(chan error, 1)
		go func() { done <- issuer.FetchX509SVID(&workload.X509SVIDRequest{}, out) }()
		long := <-out.svids
		const ttl = 2 * time.Second
		issuer.SetTTL(ttl, 0)
		last, at := <-out.svids, time.Now()
		if end := last.Certificates[0].NotAfter; end.Sub(at) != ttl || end.After(long.Certificates[0].NotAfter) {
			t.Errorf("after SetTTL the SVID lives %s, want %s", end.Sub(at), ttl)
		}
		for range 3 {
			next := <-out.svids
			if left := time.Until(last.Certificates[0].NotAfter); left != time.Since(at) {
				t.Errorf("renewed %s before the end and %s after the beginning", left, time.Since(at))
			}
			if next.Certificates[0].SerialNumber.Cmp(last.Certificates[0].SerialNumber) == 0 {
				t.Error("the same certificate was sent twice")
			}
			last, at = next, time.Now()
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

func TestCATurnsOverInThreeSteps(t *testing.T) {
	issuer, _, c := start(t)
	register(t, issuer, self)
	if err := issuer.ActivateCA(); err == nil {
		t.Error("a CA that was not prepared is active")
	}
	s := fetch(t, c, asking(t, "true"))
	_, bundle := receive(t, s)
	old := bundle[0]

	if err := issuer.PrepareCA(); err != nil {
		t.Fatal(err)
	}
	svid, bundle := receive(t, s)
	if len(bundle) != 2 || !signedBy(t, svid, old) {
		t.Fatalf(
			"prepared: %d authorities, signed by the old one: %v; want both trusted and the old one signing",
			len(bundle),
			signedBy(t, svid, old),
		)
	}
	if err := issuer.PrepareCA(); err != nil || len(issuer.Authorities()) != 2 {
		t.Errorf("prepared twice: %v, %d authorities", err, len(issuer.Authorities()))
	}

	if err := issuer.ActivateCA(); err != nil {
		t.Fatal(err)
	}
	svid, bundle = receive(t, s)
	if len(bundle) != 2 || signedBy(t, svid, old) || !signedBy(t, svid, bundle[0]) {
		t.Fatalf(
			"activated: %d authorities, signed by the old one: %v; want both trusted and the new one signing",
			len(bundle),
			signedBy(t, svid, old),
		)
	}

	if err := issuer.RetireCA(); err != nil {
		t.Fatal(err)
	}
	svid, bundle = receive(t, s)
	if len(bundle) != 1 || bytes.Equal(bundle[0].Raw, old.Raw) || !signedBy(t, svid, bundle[0]) {
		t.Errorf("retired: %d authorities, the old one among them: %v", len(bundle), bytes.Equal(bundle[0].Raw, old.Raw))
	}
}

func TestCAsOutliveTheIssuer(t *testing.T) {
	var kept []*authority.CA
	save := func(cas []*authority.CA) error { kept = append([]*authority.CA(nil), cas...); return nil }
	first, err := New(domain, nil, save)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.PrepareCA(); err != nil {
		t.Fatal(err)
	}
	second, err := New(domain, kept, save)
	if err != nil {
		t.Fatal(err)
	}
	a, b := first.Authorities(), second.Authorities()
	if len(a) != 2 || len(b) != 2 || !a[0].Equal(b[0]) || !a[1].Equal(b[1]) {
		t.Errorf("%d authorities before, %d after", len(a), len(b))
	}
	ended, err := authority.New(domain, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	third, err := New(domain, []*authority.CA{ended}, save)
	if err != nil || third.Authorities()[0].Equal(ended.Cert) {
		t.Errorf("a CA that has ended signs on: %v", err)
	}
	if _, err := New(domain, nil, func([]*authority.CA) error { return errors.New("disk full") }); err == nil {
		t.Error("an issuer whose CA could not be kept starts")
	}
}

func TestMintSpeaksForItsOwnDomainAlone(t *testing.T) {
	issuer, _, _ := start(t)
	if _, _, err := issuer.Mint(
		spiffeid.RequireFromString("spiffe://example.com/lms"), time.Now(), time.Hour,
	); err == nil {
		t.Error("an ID of another domain is signed")
	}
	svid, authorities, err := issuer.Mint(
		spiffeid.RequireFromPath(issuer.domain, "/unregistered"),
		time.Now().Add(-time.Hour),
		time.Minute,
	)
	if err != nil || !signedBy(t, svid, authorities[0]) || time.Now().Before(svid.Certificates[0].NotAfter) {
		t.Errorf("a certificate of the past: %v", err)
	}
}

func TestBundleIsStreamedAndJWTsAreNotIssued(t *testing.T) {
	issuer, _, c := start(t)
	register(t, issuer, self)
	s, err := c.FetchX509Bundles(asking(t, "true"), &workload.X509BundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got, err := x509.ParseCertificates(r.Bundles[issuer.domain.IDString()])
		if err != nil || len(got) != want {
			t.Errorf("%d authorities, %v; want %d", len(got), err, want)
		}
		if want == 1 {
			if err := issuer.PrepareCA(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := c.FetchJWTSVID(asking(t, "true"), &workload.JWTSVIDRequest{Audience: []string{"x"}}); status.Code(
		err,
	) != codes.Unimplemented {
		t.Errorf("a JWT: %v", err)
	}
}

// TestMeshFollowsTheIssuer joins the mesh with only the socket, as a service does.
func TestMeshFollowsTheIssuer(t *testing.T) {
	issuer, socket, _ := start(t)
	register(t, issuer, self)
	dir := t.TempDir()
	file := filepath.Join(dir, "topology.yaml")
	if err := os.WriteFile(file, manifests.Topology(), 0o600); err != nil {
		t.Fatal(err)
	}
	config := mesh.Config{
		TopologyFile: file,
		AuditFile:    filepath.Join(dir, "audit"),
		Socket:       socket,
		Log:          slog.New(slog.DiscardHandler),
	}
	if _, err := mesh.Join(t.Context(), "risk-scorer", config); err == nil {
		t.Error("this process joined under another's name")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	node, err := mesh.Join(ctx, self, config)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Audit().Close()
	before, err := node.Identity()
	if err != nil {
		t.Fatal(err)
	}
	issuer.Rotate()
	meshtest.Await(t, "a new certificate", func() bool {
		now, err := node.Identity()
		return err == nil && now.Generation > before.Generation
	})
	issuer.Withdraw(self)
	meshtest.Await(t, "the loss of the identity", func() bool { return node.Check(ctx) != nil })
	issuer.Restore(self)
	meshtest.Await(t, "the identity to be back", func() bool { return node.Check(ctx) == nil })
}
