// Package workloadapi is the lab's own issuer: a SPIFFE Workload API for the processes of one machine.
//
// It attests the calling process by SO_PEERCRED against the processes that the supervisor has started, demands the
// security header as SPIRE does, streams new SVIDs at half-life, and obeys the lab: a TTL can be set, an identity
// withdrawn, the CA turned over. The protocol is
// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md.
package workloadapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"example.org/security-training/services/mesh/authority"
)

// Defaults of SPIRE 1.15.
const (
	DefaultTTL   = time.Hour
	DefaultCATTL = 24 * time.Hour
)

const (
	greeting = 5 * time.Second  // from connecting to HTTP/2's preface
	idle     = 10 * time.Second // without a call
)

// Issuer holds the trust domain's CA and knows which process is which workload.
type Issuer struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	domain spiffeid.TrustDomain
	save   func([]*authority.CA) error // keeps the CAs on disk, the active one first

	mu        sync.Mutex
	cas       []*authority.CA // the first one signs; all are trusted
	prepared  *authority.CA   // one of cas: trusted, and about to sign
	heard     time.Time       // from here on everybody has heard of prepared, and it may sign by itself
	ttl       time.Duration
	caTTL     time.Duration
	processes map[int32]process
	withdrawn map[string]bool
	issued    map[string]Issued
	turn      int            // grows with every change that concerns everybody
	turns     map[string]int // grows with every change that concerns one workload alone
	changed   chan struct{}
}

// process is a registered process; started tells it from a later one that got the same PID.
type process struct {
	name    string
	started string
}

// Issued is the newest SVID of a workload.
type Issued struct {
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
}

// New makes an issuer with the CAs in cas, the active one first, or with a fresh one if there are none. Save is called
// with every change, before it comes into force. A CA that began after the active one is the prepared one: a turnover
// goes on where the issuer before left it.
func New(domain spiffeid.TrustDomain, cas []*authority.CA, save func([]*authority.CA) error) (*Issuer, error) {
	i := &Issuer{
		domain: domain, save: save, cas: slices.Clone(cas), ttl: DefaultTTL, caTTL: DefaultCATTL,
		processes: map[int32]process{}, withdrawn: map[string]bool{}, issued: map[string]Issued{}, turns: map[string]int{},
		changed: make(chan struct{}),
	}
	now := time.Now()
	i.cas = slices.DeleteFunc(i.cas, func(ca *authority.CA) bool { return now.After(ca.Cert.NotAfter) })
	if len(i.cas) > 0 {
		for _, ca := range i.cas {
			if begins := ca.Cert.NotBefore; begins.After(i.cas[0].Cert.NotBefore) &&
				(i.prepared == nil || begins.After(i.prepared.Cert.NotBefore)) {
				i.prepared = ca
			}
		}
		i.heard = now.Add(i.settling(now)) // whoever was there heard of it, and whoever comes back hears of it first
		return i, nil
	}
	ca, err := authority.New(domain, now, i.caTTL)
	if err != nil {
		return nil, err
	}
	i.cas = []*authority.CA{ca}
	return i, save(i.cas)
}

// Serve answers on l, which must be a unix socket, until ctx ends.
func (i *Issuer) Serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer(grpc.Creds(peerCredentials{}),
		// Every user of the machine can connect: what asks nothing is not kept.
		grpc.ConnectionTimeout(greeting), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.MaxConcurrentStreams(32), grpc.MaxRecvMsgSize(64<<10), grpc.MaxHeaderListSize(16<<10))
	workload.RegisterSpiffeWorkloadAPIServer(s, i)
	go i.turnCA(ctx)
	stop := context.AfterFunc(ctx, s.Stop) // streams never end by themselves
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve workload API: %w", err)
	}
	return nil
}

// Start runs start, which must start a process and return its PID, and registers that process as name before it can be
// attested: a call that comes at once waits until Start is done.
func (i *Issuer) Start(name string, start func() (pid int, err error)) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	pid, err := start()
	if err != nil {
		return err
	}
	started, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	i.processes[int32(pid)] = process{name, started}
	return nil
}

// Ended forgets a process.
func (i *Issuer) Ended(pid int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.processes, int32(pid)) // its streams end with its connections
}

// SetTTL sets the life of SVIDs, and of CAs made from now on; zero leaves one as it is. Every workload gets a new SVID
// at once.
func (i *Issuer) SetTTL(svid, ca time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if svid > 0 {
		i.ttl = svid
	}
	if ca > 0 {
		i.caTTL = ca
	}
	i.everybody()
}

// Rotate issues a new SVID to every workload at once.
func (i *Issuer) Rotate() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.everybody()
}

// RotateOne issues a new SVID to one workload at once.
func (i *Issuer) RotateOne(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.turns[name]++
	i.signal()
}

// Withdraw takes name's identity away: open streams end with PermissionDenied, as new calls do, until Restore.
func (i *Issuer) Withdraw(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.withdrawn[name] = true
	delete(i.issued, name)
	i.turns[name]++
	i.signal()
}

// Restore undoes Withdraw.
func (i *Issuer) Restore(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.withdrawn, name)
	i.turns[name]++
	i.signal()
}

// PrepareCA makes a new CA that everybody trusts from now on and that signs nothing yet.
func (i *Issuer) PrepareCA() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.prepareCA(time.Now())
}

func (i *Issuer) prepareCA(now time.Time) error {
	if i.prepared != nil {
		return nil
	}
	ca, err := authority.New(i.domain, now, i.caTTL)
	if err != nil {
		return err
	}
	// Certificates have whole seconds, and New tells a prepared CA by its later beginning.
	if active := i.cas[0].Cert.NotBefore; !ca.Cert.NotBefore.After(active) {
		late := active.Sub(ca.Cert.NotBefore) + time.Second
		if ca, err = authority.New(i.domain, now.Add(late), i.caTTL); err != nil {
			return err
		}
	}
	if err := i.hold(append(slices.Clone(i.cas), ca)); err != nil {
		return err
	}
	i.prepared, i.heard = ca, now.Add(i.settling(now))
	return nil
}

// ActivateCA has the prepared CA sign, and gives everybody an SVID of it.
func (i *Issuer) ActivateCA() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.activateCA()
}

func (i *Issuer) activateCA() error {
	if i.prepared == nil {
		return errors.New("activate CA: none is prepared")
	}
	cas := slices.DeleteFunc(slices.Clone(i.cas), func(ca *authority.CA) bool { return ca == i.prepared })
	if err := i.hold(slices.Insert(cas, 0, i.prepared)); err != nil {
		return err
	}
	i.prepared = nil
	return nil
}

// RetireCA ends the trust in every CA but the one that signs and the prepared one.
func (i *Issuer) RetireCA() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hold(
		slices.DeleteFunc(slices.Clone(i.cas), func(ca *authority.CA) bool { return ca != i.cas[0] && ca != i.prepared }),
	)
}

// hold saves cas, puts them into force and tells everybody. What could not be saved does not come into force: the next
// issuer would not know it.
func (i *Issuer) hold(cas []*authority.CA) error {
	if err := i.save(cas); err != nil {
		return err
	}
	i.cas = cas
	i.everybody()
	return nil
}

// turnCA turns the CA over by itself, until ctx ends.
func (i *Issuer) turnCA(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i.mu.Lock()
		i.turnOver(time.Now())
		i.mu.Unlock()
	}
}

// turnOver takes what steps are due: a successor is prepared when two thirds of the active CA's life are left, and
// signs when half is and every workload trusts it; the CA before it is trusted until it ends. A step that fails
// is tried again in a second; workloads go on with what they have.
func (i *Issuer) turnOver(now time.Time) {
	ended := func(ca *authority.CA) bool { return now.After(ca.Cert.NotAfter) && ca != i.cas[0] }
	if slices.ContainsFunc(i.cas, ended) {
		if err := i.hold(slices.DeleteFunc(slices.Clone(i.cas), ended)); err == nil && !slices.Contains(i.cas, i.prepared) {
			i.prepared = nil // it was given a shorter life than the active one had left: another is prepared in its time
		}
	}
	active := i.cas[0].Cert
	life, left := lifeOf(active), active.NotAfter.Sub(now)
	if i.prepared == nil && left < life*2/3 {
		_ = i.prepareCA(now)
	}
	if i.prepared != nil && left < life/2 && !now.Before(i.heard) {
		_ = i.activateCA()
	}
}

// longestSettling is more than enough for a bundle that is streamed to reach everybody.
const longestSettling = time.Minute

// settling is how long a prepared CA is only trusted, from now on, before it signs by itself: a minute, less where the
// active CA's life is short or nearly over.
func (i *Issuer) settling(now time.Time) time.Duration {
	active := i.cas[0].Cert
	return max(0, min(longestSettling, lifeOf(active)/12, active.NotAfter.Sub(now)/2))
}

func lifeOf(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }

// everybody has all streams send anew.
func (i *Issuer) everybody() {
	i.turn++
	i.signal()
}

func (i *Issuer) signal() {
	close(i.changed)
	i.changed = make(chan struct{})
}

// Issued is the newest SVID of each workload that holds one.
func (i *Issuer) Issued() map[string]Issued {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make(map[string]Issued, len(i.issued))
	for k, v := range i.issued {
		out[k] = v
	}
	return out
}

// Authorities are the certificates that are trusted now, the signing one first.
func (i *Issuer) Authorities() []*x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.authorities()
}

func (i *Issuer) authorities() []*x509.Certificate {
	out := make([]*x509.Certificate, len(i.cas))
	for n, ca := range i.cas {
		out[n] = ca.Cert
	}
	return out
}

// Mint is the CA speaking, for the operator and for tests: an SVID for any ID of the domain, valid for ttl from at.
func (i *Issuer) Mint(id spiffeid.ID, at time.Time, ttl time.Duration) (*x509svid.SVID, []*x509.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if id.TrustDomain() != i.domain {
		return nil, nil, fmt.Errorf("mint %s: this CA speaks for %s alone", id, i.domain)
	}
	svid, err := i.cas[0].Issue(id, at, ttl, nil)
	return svid, i.authorities(), err
}

// attest finds the workload behind a call.
func (i *Issuer) attest(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return "", status.Error(codes.InvalidArgument, "security header missing from request")
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", status.Error(codes.PermissionDenied, "no identity issued")
	}
	caller, ok := p.AuthInfo.(credential)
	if !ok {
		return "", status.Error(codes.PermissionDenied, "no identity issued")
	}
	i.mu.Lock()
	known, ok := i.processes[caller.pid]
	withdrawn := i.withdrawn[known.name]
	i.mu.Unlock()
	if !ok || withdrawn {
		return "", status.Error(codes.PermissionDenied, "no identity issued")
	}
	if started, err := startTime(int(caller.pid)); err != nil || started != known.started {
		return "", status.Error(codes.PermissionDenied, "no identity issued") // another process under the same number
	}
	return known.name, nil
}

// FetchX509SVID streams the caller's SVID, anew at each half-life and at each change.
func (i *Issuer) FetchX509SVID(
	_ *workload.X509SVIDRequest,
	stream grpc.ServerStreamingServer[workload.X509SVIDResponse],
) error {
	return i.stream(stream.Context(), func(name string) (time.Duration, error) {
		now := time.Now()
		svid, bundle, err := i.issue(name, now)
		if err != nil {
			return 0, err
		}
		key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
		if err != nil {
			return 0, status.Error(codes.Internal, err.Error())
		}
		leaf := svid.Certificates[0]
		if err := stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
			SpiffeId: svid.ID.String(), X509Svid: der(svid.Certificates), X509SvidKey: key, Bundle: bundle,
		}}}); err != nil {
			return 0, err
		}
		return leaf.NotAfter.Sub(now) / 2, nil
	})
}

// issue makes name's next SVID, unless its identity was withdrawn a moment ago, and notes it in the same breath: what
// is noted later could undo the withdrawal's own note.
func (i *Issuer) issue(name string, now time.Time) (svid *x509svid.SVID, bundle []byte, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.withdrawn[name] {
		return nil, nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	svid, err = i.cas[0].Issue(spiffeid.RequireFromPath(i.domain, "/"+name), now, i.ttl, nil)
	if err != nil {
		return nil, nil, status.Error(codes.Internal, err.Error())
	}
	leaf := svid.Certificates[0]
	i.issued[name] = Issued{Serial: fmt.Sprintf("%x", leaf.SerialNumber), Expires: leaf.NotAfter}
	return svid, der(i.authorities()), nil
}

// FetchX509Bundles streams the bundle of the trust domain.
func (i *Issuer) FetchX509Bundles(
	_ *workload.X509BundlesRequest,
	stream grpc.ServerStreamingServer[workload.X509BundlesResponse],
) error {
	return i.stream(stream.Context(), func(string) (time.Duration, error) {
		return time.Hour, stream.Send(
			&workload.X509BundlesResponse{Bundles: map[string][]byte{i.domain.IDString(): der(i.Authorities())}},
		)
	})
}

// stream calls send now, after the time that send returned, and at each change that concerns the caller, until the
// caller goes or may not know any more.
func (i *Issuer) stream(ctx context.Context, send func(name string) (time.Duration, error)) error {
	last := -1
	var timer <-chan time.Time
	for {
		name, err := i.attest(ctx)
		if err != nil {
			return err
		}
		i.mu.Lock()
		changed, turn := i.changed, i.turn+i.turns[name]
		i.mu.Unlock()
		if turn != last {
			next, err := send(name)
			if err != nil {
				return err
			}
			last, timer = turn, time.After(next)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer:
			last = -1
		}
	}
}

func der(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}

// credential is what the kernel says of the caller.
type credential struct{ pid int32 }

func (credential) AuthType() string { return "peercred" }

// peerCredentials takes what the kernel told the listener of who opened a connection. A caller over TCP has no such
// credential and is turned away.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	a, ok := c.(*admitted)
	if !ok {
		return nil, nil, errors.New("attest: not a unix socket")
	}
	return c, credential{a.pid}, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("attest: this is the server's side")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }
func (peerCredentials) OverrideServerName(string) error           { return nil }
