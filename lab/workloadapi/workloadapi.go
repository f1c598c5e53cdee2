// Package workloadapi is the lab's own issuer: a SPIFFE Workload API for the processes of one machine.
//
// It attests a calling process by SO_PEERCRED: the process must be one that the supervisor has started. It demands the
// security header, as SPIRE does, and streams a new SVID at half of the old one's lifetime. The lab can set lifetimes,
// withdraw an identity and rotate the CA. The protocol is
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

// The defaults of SPIRE 1.15.
const (
	DefaultTTL   = time.Hour
	DefaultCATTL = 24 * time.Hour
)

const (
	greeting = 5 * time.Second  // for a new connection to begin HTTP/2
	idle     = 10 * time.Second // for a connection without a call
)

// Issuer holds the CAs of the trust domain, and knows which process is which workload.
type Issuer struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	domain spiffeid.TrustDomain
	save   func([]*authority.CA) error // stores the CAs, the active one first

	mu        sync.Mutex
	cas       []*authority.CA // the first one signs; all are trusted
	prepared  *authority.CA   // one of cas: trusted, and the next to sign
	heard     time.Time       // when all workloads trust prepared, so that it may begin to sign
	ttl       time.Duration
	caTTL     time.Duration
	processes map[int32]process
	withdrawn map[string]bool
	issued    map[string]Issued
	turn      int            // grows with every change that concerns all workloads
	turns     map[string]int // grows with every change that concerns one workload
	changed   chan struct{}
}

// process is a registered process. Started distinguishes it from a later process with the same PID.
type process struct {
	name    string
	started string
}

// Issued is the newest SVID of a workload.
type Issued struct {
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
}

// New makes an issuer with the CAs in cas, the active one first, or with a new CA if there are none. It calls save with
// every change, before the change takes effect. A CA that is newer than the active one is the prepared one, so a
// rotation goes on where an earlier issuer stopped.
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
		i.heard = now.Add(i.settling(now)) // streams that are open have it, and new ones get it first
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
		// Every user of the machine can connect, so connections without a call are closed.
		grpc.ConnectionTimeout(greeting), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.MaxConcurrentStreams(32), grpc.MaxRecvMsgSize(64<<10), grpc.MaxHeaderListSize(16<<10))
	workload.RegisterSpiffeWorkloadAPIServer(s, i)
	go i.turnCA(ctx)
	stop := context.AfterFunc(ctx, s.Stop) // streams do not end by themselves
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve workload API: %w", err)
	}
	return nil
}

// Start calls start, which must start a process and return its PID, and registers the process as name. A call of the
// process waits until it is registered.
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

// Ended removes a process.
func (i *Issuer) Ended(pid int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.processes, int32(pid)) // its streams end with its connections
}

// SetTTL sets the lifetime of SVIDs, and of CAs made from now on. Zero changes nothing. Every workload gets a new SVID
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
	i.wakeAll()
}

// Rotate issues a new SVID to every workload at once.
func (i *Issuer) Rotate() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.wakeAll()
}

// RotateOne issues a new SVID to one workload at once.
func (i *Issuer) RotateOne(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.turns[name]++
	i.signal()
}

// Withdraw takes the identity of name away until Restore. Open streams end with PermissionDenied, and so do new calls.
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

// PrepareCA makes a new CA. All workloads trust it from now on, and it signs nothing yet.
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
	// Certificates have whole seconds, and New recognises a prepared CA by its later beginning.
	if active := i.cas[0].Cert.NotBefore; !ca.Cert.NotBefore.After(active) {
		late := active.Sub(ca.Cert.NotBefore) + time.Second
		if ca, err = authority.New(i.domain, now.Add(late), i.caTTL); err != nil {
			return err
		}
	}
	if err := i.setCAs(append(slices.Clone(i.cas), ca)); err != nil {
		return err
	}
	i.prepared, i.heard = ca, now.Add(i.settling(now))
	return nil
}

// ActivateCA makes the prepared CA sign, and renews the SVID of every workload.
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
	if err := i.setCAs(slices.Insert(cas, 0, i.prepared)); err != nil {
		return err
	}
	i.prepared = nil
	return nil
}

// RetireCA removes every CA but the active and the prepared one from the bundle.
func (i *Issuer) RetireCA() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.setCAs(
		slices.DeleteFunc(slices.Clone(i.cas), func(ca *authority.CA) bool { return ca != i.cas[0] && ca != i.prepared }),
	)
}

// setCAs saves cas, puts them into effect and wakes all streams. If they cannot be saved they do not take effect,
// because the next issuer would not know them.
func (i *Issuer) setCAs(cas []*authority.CA) error {
	if err := i.save(cas); err != nil {
		return err
	}
	i.cas = cas
	i.wakeAll()
	return nil
}

// turnCA rotates the CA when that is due, until ctx ends.
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

// turnOver takes the steps that are due. It prepares a successor when two thirds of the active CA's lifetime are left,
// and activates it when half of it is left and every workload trusts the successor. The old CA stays trusted until it
// expires. A step that fails is tried again a second later; meanwhile the workloads keep what they have.
func (i *Issuer) turnOver(now time.Time) {
	ended := func(ca *authority.CA) bool { return now.After(ca.Cert.NotAfter) && ca != i.cas[0] }
	if slices.ContainsFunc(i.cas, ended) {
		if err := i.setCAs(slices.DeleteFunc(slices.Clone(i.cas), ended)); err == nil && !slices.Contains(i.cas, i.prepared) {
			i.prepared = nil // its lifetime is shorter than the rest of the active CA's: another will be prepared
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

// longestSettling is more than enough for a streamed bundle to reach every workload.
const longestSettling = time.Minute

// settling is how long a prepared CA is only trusted, from now on, before turnOver activates it: a minute, or less if
// the active CA's lifetime is short or nearly over.
func (i *Issuer) settling(now time.Time) time.Duration {
	active := i.cas[0].Cert
	return max(0, min(longestSettling, lifeOf(active)/12, active.NotAfter.Sub(now)/2))
}

func lifeOf(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }

// wakeAll makes all streams send again.
func (i *Issuer) wakeAll() {
	i.turn++
	i.signal()
}

func (i *Issuer) signal() {
	close(i.changed)
	i.changed = make(chan struct{})
}

// Issued returns the newest SVID of each workload that holds one.
func (i *Issuer) Issued() map[string]Issued {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make(map[string]Issued, len(i.issued))
	for k, v := range i.issued {
		out[k] = v
	}
	return out
}

// Authorities returns the certificates of the trusted CAs, the active one first.
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

// Mint signs an SVID for any ID of the trust domain, valid from at for ttl. It is for the operator and for tests.
func (i *Issuer) Mint(id spiffeid.ID, at time.Time, ttl time.Duration) (*x509svid.SVID, []*x509.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if id.TrustDomain() != i.domain {
		return nil, nil, fmt.Errorf("mint %s: this CA speaks for %s alone", id, i.domain)
	}
	svid, err := i.cas[0].Issue(id, at, ttl, nil)
	return svid, i.authorities(), err
}

// attest returns the workload that makes a call.
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
		return "", status.Error(codes.PermissionDenied, "no identity issued") // another process with the same number
	}
	return known.name, nil
}

// FetchX509SVID streams the caller's SVID: at once, at half of each SVID's lifetime, and at each change.
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

// issue makes the next SVID of name and records it, unless the identity has just been withdrawn. Both happen under one
// lock, so that the record cannot overwrite the withdrawal.
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

// stream calls send, again at the time that send returned, and at each change that concerns the caller. It ends when
// the caller disconnects or has no identity any more.
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

// credential is the kernel's information about the caller.
type credential struct{ pid int32 }

func (credential) AuthType() string { return "peercred" }

// peerCredentials passes on what the kernel told the listener about the peer of a connection. A caller over TCP has no
// such credential and is refused.
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
