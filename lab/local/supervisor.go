package local

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/topology"
)

// supervisorName is what the supervisor's own process is called in a status.
const supervisorName = "supervisor"

// serverName is the database server itself, whose identity dbkeeper holds: a process without a row.
const serverName = "postgres-server"

// Supervisor is the parent of every process of one lab, and the host of its issuer.
type Supervisor struct {
	control  *control.Server
	folder   folder
	settings settings
	topo     *topology.Topology
	issuer   issuer
	log      *slog.Logger
	nursery  *nursery
	probe    *http.Client
	program  string // which build of the lab's own program this is

	mu        sync.Mutex
	processes map[string]*process
	stopping  bool
	changed   chan struct{}
}

// process is something that is kept running.
type process struct {
	name  string
	row   topology.Workload // zero for the database's server
	path  string
	args  []string
	env   []string
	who   account
	log   string         // its file
	end   syscall.Signal // how it is asked to end
	death syscall.Signal // what it gets when the supervisor dies

	out *logFile // of run alone, which runs once at a time

	// guarded by Supervisor.mu
	cmd      *exec.Cmd
	born     birth // of cmd: when it has been waited for, its number may be another process's
	started  time.Time
	program  string // which build of path was started, as programID tells
	restarts int
	ready    bool
	why      string
	exited   chan struct{}
	again    chan struct{} // ends a pause before a restart
}

// Supervise runs the lab in dir until ctx ends or it is told to end. It is what `lab supervise` does.
func Supervise(ctx context.Context, dir string) error {
	s := &Supervisor{
		folder: folder{
			control.StateDir(dir),
		}, processes: map[string]*process{}, nursery: newNursery(), changed: make(chan struct{}),
		log:     slog.New(slog.NewJSONHandler(os.Stderr, nil)),
		program: programID(runningProgram),
		probe: &http.Client{
			Timeout:   time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second},
		},
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.folder.Trusted(); err != nil {
		return err
	}
	if err := adoptOrphans(); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	claim, err := control.Claim(s.settings.Host)
	if err != nil {
		return err
	}
	defer claim.Close()
	go buryOrphans(context.WithoutCancel(ctx), s.waitsFor) // as long as this process lives
	s.remember()                                           // before an order to end: who gives it waits for this process
	failed := make(chan error, 4)
	if err := s.control.Serve(s, stop, failed); err != nil {
		return err
	}
	err = s.live(ctx, failed)
	s.stopAll()
	return errors.Join(err, s.control.Close())
}

// live starts everything and returns when ctx ends, which is no fault whenever it happens, or something failed.
func (s *Supervisor) live(ctx context.Context, failed chan error) error {
	err := s.issuer.serve(ctx, s, failed)
	if err == nil {
		err = s.startAll()
	}
	if err == nil {
		go s.watchHealth(ctx)
		go s.control.Conduct(ctx, s.settings.Host)
		select {
		case <-ctx.Done():
		case err = <-failed:
			s.log.Error("supervisor", "error", err.Error())
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Supervisor) open() error {
	var err error
	if err = s.folder.Read(&s.settings); err != nil {
		return err
	}
	if s.control, err = control.Open(s.folder.StateDir, s.log); err != nil {
		return err
	}
	s.topo = s.control.Topo
	s.issuer, err = s.newIssuer()
	return err
}

func loadCAs(path string, topo *topology.Topology) ([]*authority.CA, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CAs: %w", err)
	}
	var cas []*authority.CA
	for len(text) > 0 {
		_, afterCert := pem.Decode(text)
		block, rest := pem.Decode(afterCert)
		if block == nil {
			return nil, fmt.Errorf("read CAs %s: a certificate without a key", path)
		}
		ca, err := authority.FromPEM(topo.Domain(), text[:len(text)-len(rest)])
		if err != nil {
			return nil, err
		}
		cas, text = append(cas, ca), rest
	}
	return cas, nil
}

func saveCAs(path string, cas []*authority.CA) error {
	var text []byte
	for _, ca := range cas {
		p, err := ca.PEM()
		if err != nil {
			return err
		}
		text = append(text, p...)
	}
	return control.Replace(path, text, 0o600)
}

// startAll starts the database's server and every row that has a binary, all at once: who needs another waits for it.
func (s *Supervisor) startAll() error {
	who, err := databaseAccount()
	if err != nil {
		return err
	}
	pg := s.folder.postgres()
	s.keep(&process{
		name: serverName, path: filepath.Join(
			s.settings.Postgres, "postgres",
		), who: who, log: s.folder.WorkloadLog(serverName),
		args: []string{
			"-D",
			pg.Path("data"),
			"-h",
			s.settings.Host,
			"-p",
			strconv.Itoa(s.settings.DBPort),
			"-k",
			pg.Path("run"),
		},
		env: []string{mark + "=" + string(s.folder.StateDir), "LC_ALL=C", "TZ=UTC"},
		end: syscall.SIGINT, death: syscall.SIGQUIT,
	})
	for i, w := range s.topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		p := &process{
			name: w.Name, row: w, path: s.folder.binary(w.Name), log: s.folder.WorkloadLog(w.Name),
			env: s.environment(w), who: s.account(i, w, who), end: syscall.SIGTERM, death: syscall.SIGKILL,
		}
		if w.WebTLS != 0 {
			if err := s.preparePeople(w, p.who); err != nil {
				return err
			}
		}
		s.keep(p)
	}
	return nil
}

// preparePeople gives the workload that serves people by HTTPS a fresh certificate, at each start of the supervisor.
func (s *Supervisor) preparePeople(w topology.Workload, who account) error {
	files, err := s.control.PeopleTLS(s.settings.Host, s.settings.Spec.Listen)
	if err != nil {
		return err
	}
	dir := s.folder.peopleTLS(w.Name)
	if err = shareFolder(dir, who); errors.Is(err, os.ErrExist) {
		err = nil
	}
	for name, content := range files {
		err = errors.Join(err, share(filepath.Join(dir, name), content, who))
	}
	if err != nil {
		return fmt.Errorf("certify %s to people: %w", w.Name, err)
	}
	return nil
}

// account is whom row i runs as: a uid of its own where root can give it one; the database's keeper is the database's
// own.
func (s *Supervisor) account(i int, w topology.Workload, database account) account {
	if w.Kind == topology.KindDatabase {
		return database
	}
	return workloadAccount(s.settings, i)
}

func workloadAccount(st settings, i int) account {
	if st.UIDs == 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}
	}
	return account{uid: st.UIDs + i, gid: st.UIDs + i}
}

// environment is everything that a workload is told. Nothing is inherited.
func (s *Supervisor) environment(w topology.Workload) []string {
	f, keys := s.folder.Of(w.Name), s.folder.Keys(w.Name)
	e := []string{
		mark + "=" + string(s.folder.StateDir),
		"WORKLOAD=" + w.Name,
		"SPIFFE_ENDPOINT_SOCKET=unix://" + s.folder.api(),
		"TRUST_DOMAIN=" + s.topo.TrustDomain,
		"TOPOLOGY_FILE=" + s.folder.Topology(),
		"MESH_HOST=" + s.settings.Host,
		"AUDIT_FILE=" + f.Path("audit"),
		"DATA_DIR=" + f.Path("state"),
	}
	if s.settings.Pprof {
		e = append(e, "PPROF_SOCKET="+s.folder.WorkloadPprof(w.Name))
	}
	if len(w.Database) > 0 {
		e = append(e, "DB_HOST="+s.settings.Host, "DB_PORT="+strconv.Itoa(s.settings.DBPort), "DB_NAME=security_training")
	}
	if w.WebTLS != 0 {
		e = append(e, "PEOPLE_TLS_DIR="+s.folder.peopleTLS(w.Name), "PEOPLE_LISTEN="+s.settings.Spec.Listen)
	}
	if w.Source != "" {
		e = append(e, "SOURCE_SECRET_FILE="+keys.Path("source.secret"))
	}
	switch w.Kind {
	case topology.KindDatabase:
		e = append(
			e,
			"PGHOST="+s.folder.postgres().Path("run"),
			"DB_PORT="+strconv.Itoa(s.settings.DBPort),
			"DB_NAME=security_training",
			"TLS_DIR="+s.folder.postgres().Path("tls"),
		)
	case topology.KindGateway:
		e = append(
			e,
			"LLM_BACKEND="+s.settings.Backend,
			"GEMINI_MODEL="+s.settings.Model,
			"GEMINI_API_KEY_FILE="+keys.Path("gemini.key"),
		)
	case topology.KindDashboard:
		if s.settings.DevDir != "" {
			e = append(e, "LMS_DEV_DIR="+s.settings.DevDir)
		}
		p := s.settings.Provider
		if p.Issuer != "" {
			e = append(e, "OIDC_ISSUER="+p.Issuer, "OIDC_CLIENT_ID="+p.Client, "OIDC_REDIRECT_URL="+p.Redirect)
		}
		if p.Mark != "" {
			e = append(e, "OIDC_CLIENT_SECRET_FILE="+keys.Path("oidc.secret"))
		}
	}
	return e
}

// keep starts p and starts it again, after a growing pause, whenever it ends.
func (s *Supervisor) keep(p *process) {
	s.mu.Lock()
	s.processes[p.name] = p
	p.again = make(chan struct{}, 1)
	s.mu.Unlock()
	go func() {
		const shortest, longest = 50 * time.Millisecond, 5 * time.Second
		pause := shortest
		for {
			began := time.Now()
			err := s.run(p)
			s.mu.Lock()
			if s.stopping {
				s.mu.Unlock()
				return
			}
			p.restarts++
			p.why = fmt.Sprintf("ended: %v", err)
			s.mu.Unlock()
			s.log.Warn("process ended", "process", p.name, "how", fmt.Sprint(err), "after", time.Since(began).String())
			s.control.Audit().Write(audit.Entry{Kind: "process", Reason: "ended", Detail: fmt.Sprintf("%s: %v", p.name, err)})
			if time.Since(began) > 10*time.Second {
				pause = shortest
			}
			select {
			case <-time.After(pause):
			case <-p.again:
			}
			pause = min(2*pause, longest)
		}
	}()
}

// run starts p once and waits for its end, and for the end of what it leaves behind where its uid tells what that is.
func (s *Supervisor) run(p *process) error {
	if p.out == nil {
		out, err := openLog(p.log, longestLog)
		if err != nil {
			return err
		}
		p.out = out
	}
	said, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	defer says.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.env, "/", says, says
	start := func() (int, error) {
		if err := s.nursery.start(cmd, p.who, p.death); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return errors.New("the lab is ending")
	}
	if p.row.Name == "" {
		_, err = start()
	} else {
		p.program = programID(p.path)
		err = s.issuer.Start(p.name, start)
	}
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.started, p.exited, p.ready = cmd, time.Now(), make(chan struct{}), false
	born, _ := statOf(cmd.Process.Pid) // it is there, if only to be waited for
	p.born = born.birth
	exited := p.exited
	s.mu.Unlock()
	says.Close()
	drained := make(chan struct{})
	go func() { p.out.drain(said); close(drained) }()
	s.remember()
	err = cmd.Wait()
	s.issuer.Ended(cmd.Process.Pid)
	if s.settings.UIDs != 0 && p.who.uid >= s.settings.UIDs {
		err = errors.Join(err, endUser(p.who))
	}
	if said.SetReadDeadline(time.Now().Add(time.Second)) != nil { // what it left behind may hold the pipe
		said.Close()
	}
	<-drained
	s.mu.Lock()
	p.cmd, p.ready = nil, false
	close(exited)
	s.signal()
	s.mu.Unlock()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

// remember writes down what runs, for a `down` that finds the supervisor killed.
func (s *Supervisor) remember() {
	r := roster{Supervisor: os.Getpid(), Boot: bootID(), Processes: map[string]birth{}}
	if p, ok := kernelProcessOf(os.Getpid()); ok {
		r.Processes[supervisorName] = p.birth
	}
	s.mu.Lock()
	for _, p := range s.processes {
		if p.cmd != nil {
			r.Processes[p.name] = p.born
		}
	}
	s.mu.Unlock()
	b, err := json.Marshal(r)
	if err == nil {
		err = control.Replace(s.folder.processes(), b, 0o600)
	}
	if err != nil {
		s.log.Error("remember processes", "error", err.Error())
	}
}

// waitsFor says whether pid is a process that run waits for.
func (s *Supervisor) waitsFor(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.processes {
		if p.cmd != nil && p.cmd.Process.Pid == pid {
			return true
		}
	}
	return false
}

// signal wakes whoever waits for a change; s.mu is held.
func (s *Supervisor) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// stopAll ends the workloads first and what they stand on last: the database's server, SPIRE.
func (s *Supervisor) stopAll() {
	s.mu.Lock()
	s.stopping = true
	var workloads, beneath []*process
	for _, p := range s.processes {
		if p.row.Name != "" {
			workloads = append(workloads, p)
		} else {
			beneath = append(beneath, p)
		}
	}
	s.mu.Unlock()
	var group sync.WaitGroup
	for _, p := range workloads {
		group.Go(func() { s.end(p, 7*time.Second) })
	}
	group.Wait()
	for _, p := range beneath {
		group.Go(func() { s.end(p, 10*time.Second) })
	}
	group.Wait()
	if err := endStrays(s.folder); err != nil {
		s.log.Error("end what was left behind", "error", err.Error())
	}
}

// end asks p to end, and makes it after patience.
func (s *Supervisor) end(p *process, patience time.Duration) {
	s.mu.Lock()
	cmd, exited := p.cmd, p.exited
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(p.end); err != nil {
		s.log.Debug("end", "process", p.name, "error", err.Error())
	}
	select {
	case <-exited:
	case <-time.After(patience):
		s.log.Warn("did not end when asked", "process", p.name)
		_ = cmd.Process.Kill() // already gone, then
		<-exited
	}
}

// Restart implements control.Backend: keep starts what it ends at once.
func (s *Supervisor) Restart(_ context.Context, name string) error {
	s.mu.Lock()
	p, ok := s.processes[name]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("restart %s: the lab has no such process", name)
	}
	s.end(p, 7*time.Second)
	select {
	case p.again <- struct{}{}:
	default:
	}
	return nil
}

// Changed implements control.Backend.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Mint implements control.Backend.
func (s *Supervisor) Mint(
	ctx context.Context,
	id spiffeid.ID,
	at time.Time,
	ttl time.Duration,
) (*x509svid.SVID, []*x509.Certificate, error) {
	return s.issuer.Mint(ctx, id, at, ttl)
}

// Order implements control.Backend.
func (s *Supervisor) Order(ctx context.Context, o control.Order) error { return s.issuer.order(ctx, o) }

// Status implements control.Backend.
func (s *Supervisor) Status() lab.Status {
	issued := s.issuer.Issued()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := lab.Status{
		Name:     s.settings.Spec.Name,
		Runtime:  RuntimeName,
		Identity: s.issuer.name(),
		Isolated: "one uid for each workload",
		Healthy:  true,
		Folder:   string(s.folder.StateDir), Spec: s.settings.Spec,
	}
	if s.settings.UIDs == 0 {
		st.Isolated = "not isolated: all workloads share your uid"
	}
	st.Seeded = s.folder.Seeded()
	for _, w := range s.topo.Workloads {
		if w.Web != 0 {
			st.Room = control.Room(s.settings.Host, w.WebTLS, s.settings.Spec.Listen)
			st.Dashboard = "http://" + net.JoinHostPort(s.settings.Host, strconv.Itoa(w.Web))
		}
		if w.Kind == topology.KindOperator {
			continue
		}
		p := s.processes[w.Name]
		ws := lab.WorkloadStatus{
			Name: w.Name, Kind: w.Kind, Address: s.settings.Addr(w), SPIFFEID: s.topo.ID(w.Name).String(),
			Serial: issued[w.Name].Serial, Expires: issued[w.Name].Expires, State: "starting",
		}
		if p != nil {
			ws.Ready, ws.UID, ws.Restarts, ws.Why = p.ready, p.who.uid, p.restarts, p.why
			ws.Program = p.program
			switch {
			case p.ready:
				ws.State, ws.Why = "ready", ""
			case p.cmd == nil:
				ws.State = "restarting"
			}
			if p.cmd != nil {
				ws.PID = p.cmd.Process.Pid
			}
		}
		st.Healthy = st.Healthy && ws.Ready
		st.Workloads = append(st.Workloads, ws)
	}
	st.Processes = append(st.Processes, lab.ProcessStatus{Name: supervisorName, PID: os.Getpid(), Program: s.program})
	for _, name := range slices.Sorted(maps.Keys(s.processes)) {
		p := s.processes[name]
		if p.row.Name != "" {
			continue
		}
		ps := lab.ProcessStatus{Name: name, Restarts: p.restarts}
		if p.cmd != nil {
			ps.PID = p.cmd.Process.Pid
		} else {
			ps.Why = p.why
		}
		st.Processes = append(st.Processes, ps)
	}
	return st
}
