package local

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab/control"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// supervisorName is the name of the supervisor's own process in a status.
const supervisorName = "supervisor"

// serverName is the name of the database server's process. It is no row of the topology: dbkeeper has its identity.
const serverName = "postgres-server"

// Supervisor is the parent of every process of one lab, and runs its issuer.
type Supervisor struct {
	control  *control.Server
	folder   folder
	settings settings
	topo     *topology.Topology
	issuer   issuer
	log      *slog.Logger
	nursery  *nursery
	probe    *http.Client
	program  string // the build of the lab's own program

	mu        sync.Mutex
	processes map[string]*process
	stopping  bool
	changed   chan struct{}
}

// process is a process that the supervisor keeps running.
type process struct {
	name  string
	row   topology.Workload // zero for a process that is no row of the topology
	path  string
	args  []string
	env   []string
	who   account
	log   string         // a file
	end   syscall.Signal // asks it to end
	death syscall.Signal // sent by the kernel when the supervisor dies

	out *logFile // used by run alone, which runs once at a time

	// guarded by Supervisor.mu
	cmd      *exec.Cmd
	born     birth // of cmd; its number may be given to another process once it has been waited for
	started  time.Time
	program  string // the build of path that was started, see programID
	restarts int
	ready    bool
	why      string
	exited   chan struct{}
	again    chan struct{} // ends the pause before a restart
}

// Supervise runs the lab in dir until ctx ends or the lab is told to end. `lab supervise` calls it.
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
	go reapOrphans(context.WithoutCancel(ctx), s.waitsFor) // until this process ends
	s.remember()                                           // before an order to end can be given
	failed := make(chan error, 4)
	if err := s.control.Serve(s, stop, failed); err != nil {
		return err
	}
	err = s.live(ctx, failed)
	s.stopAll()
	return errors.Join(err, s.control.Close())
}

// live starts everything. It returns nil when ctx ends, at any time, and an error when something fails.
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

// startAll starts the database's server and every row that has a program, all at the same time. A process that needs
// another one waits for it.
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

// keep starts p, and starts it again whenever it ends, after a pause that grows.
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

// run starts p once and waits for its end. If p has a uid of its own, run also ends what p leaves behind.
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
	born, _ := statOf(cmd.Process.Pid) // it is there at least until it has been waited for
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
	if said.SetReadDeadline(time.Now().Add(time.Second)) != nil { // a process that it left behind may hold the pipe open
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

// remember records the running processes, for a `down` after the supervisor was killed.
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

// waitsFor says whether run waits for the process pid.
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

// signal wakes everything that waits for a change. The caller holds s.mu.
func (s *Supervisor) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// stopAll ends the workloads first, and then the processes on which they depend: the database's server and SPIRE.
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

// end asks p to end, and kills it after patience.
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
		_ = cmd.Process.Kill() // fails if it has just ended
		<-exited
	}
}

// Restart implements control.Backend. It ends the process, and keep starts it again at once.
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
