package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/lab/conductor"
	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/topology"
)

// Lab is the owner's client of a lab. It uses the supervisor's admin socket and the lab's folder. If the supervisor
// does not run, only Down and the runtime's Up work.
type Lab struct {
	folder StateDir
	admin  *admin
	topo   *topology.Topology
	host   string
	down   func(context.Context, *Lab) ([]string, error)
}

var _ conductor.Controllable = (*Lab)(nil)

func newLab(f StateDir, topo *topology.Topology, host string, down func(context.Context, *Lab) ([]string, error)) *Lab {
	return &Lab{folder: f, admin: newAdmin(f.admin()), topo: topo, host: host, down: down}
}

// ErrGone says that there is a lab's folder, but that its supervisor does not answer.
var ErrGone = errors.New("its supervisor does not answer")

// LabOf returns the lab in folder f, whether its supervisor runs or not. It returns lab.ErrNone if there is no lab. The
// lab's Down calls down.
func LabOf(f StateDir, down func(context.Context, *Lab) ([]string, error)) (*Lab, error) {
	var s Settings
	err := f.Read(&s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, lab.ErrNone
	}
	if err != nil {
		return nil, err
	}
	if err := f.keepShipped(); err != nil {
		return nil, fmt.Errorf("keep the policy that the lab was made with: %w", err)
	}
	topo, err := lab.PolicyInForce(f)
	if err != nil {
		return nil, err
	}
	return newLab(f, topo, s.Host, down), nil
}

// Find returns the lab in folder f. If its supervisor does not answer, it returns both the lab and ErrGone.
func Find(ctx context.Context, f StateDir, down func(context.Context, *Lab) ([]string, error)) (*Lab, error) {
	l, err := LabOf(f, down)
	if err != nil {
		return nil, err
	}
	if _, err := l.Status(ctx); err != nil {
		return l, errors.Join(ErrGone, err)
	}
	return l, nil
}

// FindNamed is Find for the lab called name. Each runtime's Find calls it.
func FindNamed(
	ctx context.Context,
	lookup env.Lookup,
	name string,
	down func(context.Context, *Lab) ([]string, error),
) (lab.Lab, error) {
	f, err := StateDirOf(lookup, name)
	if err != nil {
		return nil, err
	}
	l, err := Find(ctx, f, down)
	if l == nil {
		return nil, err // not l: a nil *Lab in an interface is not nil
	}
	return l, err
}

// Status implements lab.Lab.
func (l *Lab) Status(ctx context.Context) (lab.Status, error) { return l.admin.status(ctx) }

// Host is the loopback address at which all workloads are reached.
func (l *Lab) Host() string { return l.host }

// Topology is the file of the running policy, which may be edited.
func (l *Lab) Topology() string { return l.folder.Topology() }

// Shipped is the file of the policy that the lab was made with.
func (l *Lab) Shipped() string { return l.folder.Shipped() }

// Results is the folder for learners' results that are written when their records are deleted from the console.
func (l *Lab) Results() string { return l.folder.Path("results") }

// StateDir is the folder in which the lab keeps everything that it has on this machine.
func (l *Lab) StateDir() StateDir { return l.folder }

// SeededAt is Milestones.SeededAt of this lab, for the conductor.
func (l *Lab) SeededAt() (int64, error) { return l.folder.Milestones().SeededAt() }

// Addr implements lab.Lab.
func (l *Lab) Addr(ctx context.Context, workload string) (string, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, w := range st.Workloads {
		if w.Name == workload {
			return w.Address, nil
		}
	}
	return "", fmt.Errorf("find %s: topology does not list it", workload)
}

// Mint implements lab.Lab.
func (l *Lab) Mint(ctx context.Context, id spiffeid.ID, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error) {
	return l.admin.mint(ctx, id, 0, ttl)
}

// MintFrom is Mint for an SVID whose validity begins at now plus from, which may be negative.
func (l *Lab) MintFrom(
	ctx context.Context,
	id spiffeid.ID,
	from, ttl time.Duration,
) (*x509svid.SVID, *x509bundle.Set, error) {
	return l.admin.mint(ctx, id, from, ttl)
}

func (l *Lab) order(ctx context.Context, o Order) error {
	return l.admin.call(ctx, http.MethodPost, "/v1/issuer", o, nil)
}

// SetTTL sets the lifetime of the SVIDs and CAs that are made from now on. Zero changes nothing.
func (l *Lab) SetTTL(ctx context.Context, svid, ca time.Duration) error {
	return l.order(ctx, Order{TTL: svid, CATTL: ca})
}

// Rotate issues a new SVID to every workload.
func (l *Lab) Rotate(ctx context.Context) error { return l.order(ctx, Order{Rotate: AllSVIDs}) }

// RotateOne issues a new SVID to one workload.
func (l *Lab) RotateOne(ctx context.Context, workload string) error {
	return l.order(ctx, Order{One: workload})
}

// RotateCA does one of the three steps of a CA rotation: "prepare", "activate" or "retire".
func (l *Lab) RotateCA(ctx context.Context, part string) error {
	return l.order(ctx, Order{Rotate: "ca-" + part})
}

// Withdraw takes a workload's identity away until Restore is called.
func (l *Lab) Withdraw(ctx context.Context, workload string) error {
	return l.order(ctx, Order{Withdraw: workload})
}

// Restore gives a withdrawn identity back.
func (l *Lab) Restore(ctx context.Context, workload string) error {
	return l.order(ctx, Order{Restore: workload})
}

// Certify makes a client certificate for a browser. For a person, name is an id of the roster and role is "person". For
// a role, both are "instructor" or "admin".
func (l *Lab) Certify(ctx context.Context, name, role string) (PersonalCertificate, error) {
	var c PersonalCertificate
	return c, l.admin.call(ctx, http.MethodPost, "/v1/certificate", personRequest{Name: name, Role: role}, &c)
}

// Audit implements lab.Lab.
func (l *Lab) Audit(_ context.Context, workload string) (io.ReadCloser, error) {
	path := l.folder.WorkloadAudit(workload)
	if workload == "supervisor" {
		path = l.folder.audit()
	}
	f, err := OpenUntrusted(path, LongestAudit)
	if err != nil {
		return nil, fmt.Errorf("read audit of %s: %w", workload, err)
	}
	return f, nil
}

// Checkpoints reads the signed ends of all chains, and the public key that verifies them.
func (l *Lab) Checkpoints() (lines, public []byte, err error) {
	lines, err = os.ReadFile(l.folder.checkpoints())
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoints: %w", err)
	}
	if public, err = os.ReadFile(l.folder.auditPublic()); err != nil {
		return nil, nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return lines, public, nil
}

// LogFile is the path of the log of a workload, of the supervisor, or of another process of the lab.
func (l *Lab) LogFile(name string) string {
	if name == "supervisor" {
		return l.folder.Log()
	}
	return l.folder.WorkloadLog(name)
}

// Restart implements lab.Lab.
func (l *Lab) Restart(ctx context.Context, workload string) error {
	return l.RestartWith(ctx, workload, "")
}

// RestartWith is Restart after a workload's program was replaced. Program is the new build, which the supervisor's
// chain records.
func (l *Lab) RestartWith(ctx context.Context, workload, program string) error {
	req := restartRequest{Workload: workload, Program: program}
	return l.admin.call(ctx, http.MethodPost, "/v1/restart", req, nil)
}

// Gone says whether err, of a call, means that no supervisor runs. A supervisor that runs and does not answer is not
// gone.
func Gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// End tells the supervisor to end itself and everything that it started. It returns when the supervisor has accepted
// that, and gives up after ten seconds.
func (l *Lab) End(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return l.admin.call(ctx, http.MethodPost, "/v1/down", nil, nil)
}

// Down implements lab.Lab. It works without a supervisor.
func (l *Lab) Down(ctx context.Context) ([]string, error) { return l.down(ctx, l) }

// Mesh implements lab.Inside.
func (l *Lab) Mesh() mesh.Config {
	file := l.folder.Topology()
	if _, err := lab.RunningPolicy(l.folder); err != nil {
		file = l.folder.Shipped() // an operator must be able to enter, to mend the policy
	}
	return mesh.Config{TopologyFile: file, Host: l.host}
}

// admin is the client of the admin socket.
type admin struct {
	http *http.Client
	path string
}

func newAdmin(path string) *admin {
	return &admin{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// patience is how long the supervisor may take to answer. A CA rotation takes longest. The status is known at once: if
// it does not come, the supervisor has been stopped.
func patience(route string) time.Duration {
	if route == "/v1/status" {
		return 15 * time.Second
	}
	return 5 * time.Minute
}

// call sends in as JSON and reads the answer into out; either may be nil.
func (a *admin) call(ctx context.Context, method, route string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(
		ctx,
		patience(route),
		fmt.Errorf("it has not answered %s for %s: %w", route, patience(route), context.DeadlineExceeded),
	)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+route, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	if err := httpjson.ReadAnswer(resp, 16<<20, out); err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	return nil
}

func (a *admin) status(ctx context.Context) (lab.Status, error) {
	var st lab.Status
	return st, a.call(ctx, http.MethodGet, "/v1/status", nil, &st)
}

func (a *admin) mint(
	ctx context.Context,
	id spiffeid.ID,
	from, ttl time.Duration,
) (*x509svid.SVID, *x509bundle.Set, error) {
	var m minted
	req := mintRequest{ID: id.String(), From: from, TTL: ttl}
	if err := a.call(ctx, http.MethodPost, "/v1/mint", req, &m); err != nil {
		return nil, nil, err
	}
	svid, err := x509svid.Parse(m.Certs, m.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("mint %s: %w", id, err)
	}
	bundle, err := x509bundle.Parse(id.TrustDomain(), m.Bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("mint %s: %w", id, err)
	}
	return svid, x509bundle.NewSet(bundle), nil
}
