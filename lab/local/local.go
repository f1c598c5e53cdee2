// Package local runs a lab as processes of this machine: PostgreSQL from installed or downloaded programs, one process
// for each workload, and a supervisor that is the parent of all of them. Up lists the steps.
package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Runtime runs labs as local processes.
type Runtime struct {
	Lookup   env.Lookup
	Binaries string   // the folder with one program for each `binary` of the topology
	Self     []string // the command of a supervisor, to which the lab's folder is appended
	Version  string
}

// RuntimeName is the name of this runtime in a status.
const RuntimeName = "local"

var _ lab.Runtime = (*Runtime)(nil)

// Find returns the lab called name. It returns lab.ErrNone if there is none, and both the lab and control.ErrGone if
// its supervisor does not run.
func (r *Runtime) Find(ctx context.Context, name string) (lab.Lab, error) {
	return control.FindNamed(ctx, r.Lookup, name, down)
}

func (r *Runtime) folder(name string) (folder, error) {
	of, err := control.StateDirOf(r.Lookup, name)
	f := folder{of}
	if err != nil {
		return f, err
	}
	longest := len(f.postgres().Path("run", ".s.PGSQL.65535"))
	if pprof, err := control.PprofOf(r.Lookup); err != nil {
		return f, err
	} else if pprof {
		topo, err := topology.FromYAML(manifests.Topology())
		if err != nil {
			return f, err
		}
		for _, w := range topo.Workloads {
			longest = max(longest, len(f.WorkloadPprof(w.Name)))
		}
	}
	if longest > 104 {
		return f, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "place the lab's sockets",
			Why:  fmt.Errorf("%s is too long for a unix socket by %d characters", f.StateDir, longest-104),
			Try:  "LAB_HOME=$HOME/labs lab up   (or another short path that only you can write; as root, unset LAB_HOME)",
		}
	}
	return f, nil
}

// Up implements lab.Runtime.
func (r *Runtime) Up(ctx context.Context, spec lab.Spec, p progress.Reporter) (lab.Lab, error) {
	if runtime.GOOS != "linux" {
		return nil, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "start a local lab",
			Why:  fmt.Errorf("%s has no SO_PEERCRED and no 127.0.0.2; the local runtime is for Linux", runtime.GOOS),
			Try:  "lab up --runtime kind",
		}
	}
	f, err := r.folder(spec.Name)
	if err != nil {
		return nil, err
	}
	if l, err := r.Find(ctx, spec.Name); err == nil {
		if st, err := l.Status(ctx); err == nil && st.Healthy {
			if err := f.Same(r.Lookup, spec); err != nil {
				return nil, err
			}
			return l, r.takeUp(ctx, l.(*control.Lab), true, p)
		}
	}
	turn, err := f.Turn(ctx, p)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	if err := f.Read(&settings{}); errors.Is(err, fs.ErrNotExist) {
		if err := r.checkRoom(thisMachine, f, spec); err != nil {
			return nil, err
		}
	}

	var l *control.Lab
	fresh := false
	steps := []struct {
		what string
		do   func() error
	}{
		{"database template", func() error { return r.preparePostgres(ctx, p) }},
		{"lab folder, secrets, binaries", func() (err error) {
			l, fresh, err = r.prepare(ctx, f, spec)
			return err
		}},
		{"supervisor, database, identities, workloads", func() error {
			if !fresh {
				if err := r.takeUp(ctx, l, false, p); err != nil {
					return err
				}
			}
			return olderPolicy(l, r.start(ctx, l))
		}},
	}
	for _, step := range steps {
		if err := progress.Step(p, step.what, step.do); err != nil {
			if l != nil && fresh && ctx.Err() != nil {
				_, downErr := l.Down(context.WithoutCancel(ctx))
				err = errors.Join(err, downErr)
			}
			return nil, err
		}
	}
	return l, nil
}

func (r *Runtime) preparePostgres(ctx context.Context, p progress.Reporter) error {
	who, err := databaseAccount()
	if err != nil {
		return &lab.Error{Code: lab.ExitPrecondition, What: "find PostgreSQL", Why: err, Try: installPostgres}
	}
	home, err := cache(r.Lookup)
	if err != nil {
		return err
	}
	bin, err := ensurePostgres(ctx, r.Lookup, postgresPlaces(r.Lookup), home, who, p.Say)
	if err != nil {
		return err
	}
	_, err = template(ctx, bin, who, r.Lookup)
	return err
}

// prepare makes the lab's folder, or completes one that an interrupted start left.
func (r *Runtime) prepare(ctx context.Context, f folder, spec lab.Spec) (*control.Lab, bool, error) {
	var st settings
	err := f.Read(&st)
	if err == nil {
		if err := f.Same(r.Lookup, spec); err != nil {
			return nil, false, err
		}
		if _, err := os.Stat(string(f.Keys(""))); err != nil {
			return nil, false, &lab.Error{
				Code: lab.ExitConflict,
				What: "bring up " + spec.Name,
				Why:  errors.New("an older version made it, with keys where its workloads can replace them"),
				Try:  "lab down, then lab up",
			}
		}
		l, err := control.LabOf(f.StateDir, down)
		return l, false, err
	}
	if err := os.RemoveAll(string(f.StateDir)); err != nil { // nothing was ever started from a folder without settings
		return nil, false, fmt.Errorf("make lab: %w", err)
	}
	text := manifests.Topology()
	topo, err := topology.FromYAML(text)
	if err != nil {
		return nil, false, err
	}
	st = settings{Settings: control.Settings{Runtime: RuntimeName, Spec: spec, Version: r.Version}}
	if st.Host, err = control.FreeHost(topo); err != nil {
		return nil, false, err
	}
	if st.DBPort, err = control.FreePort(st.Host); err != nil {
		return nil, false, err
	}
	if os.Geteuid() == 0 {
		if st.UIDs, err = freeUIDs(st.Host, filepath.Dir(string(f.StateDir))); err != nil {
			return nil, false, err
		}
	}
	if err := chooseDevDir(&st, r.Lookup); err != nil {
		return nil, false, err
	}
	model, err := control.ModelOf(r.Lookup)
	if err == nil {
		model, err = model.Choose()
	}
	if err != nil {
		return nil, false, err
	}
	st.Chosen(model)
	provider, err := control.ProviderOf(r.Lookup)
	if err != nil {
		return nil, false, err
	}
	st.Signs(provider, topo)
	if st.Pprof, err = control.PprofOf(r.Lookup); err != nil {
		return nil, false, err
	}
	key := model.Key
	if key == "" {
		key = "stub-" + token()
	}
	if st.Postgres, err = findPostgres(r.Lookup); err != nil {
		return nil, false, err
	}
	if err := r.chooseIssuer(&st); err != nil {
		return nil, false, err
	}
	if err := r.fill(ctx, f, topo, text, st, key); err != nil {
		return nil, false, errors.Join(fmt.Errorf("make lab: %w", err), os.RemoveAll(string(f.StateDir)))
	}
	l, err := control.LabOf(f.StateDir, down)
	return l, true, err
}

// chooseIssuer chooses SPIRE if its programs are found, unless the spec says otherwise.
func (r *Runtime) chooseIssuer(st *settings) error {
	st.Identity = identityEmbedded
	if st.Spec.Identity == identityEmbedded {
		return nil
	}
	dir, err := findSPIRE(r.Lookup)
	if err != nil {
		named, _ := r.Lookup("LAB_SPIRE_DIR")
		if st.Spec.Identity == identitySPIRE || named != "" {
			return &lab.Error{
				Code: lab.ExitPrecondition,
				What: "find SPIRE",
				Why:  err,
				Try:  "LAB_SPIRE_DIR=… lab up, or lab up --identity embedded",
			}
		}
		return nil
	}
	st.Identity, st.SPIRE = identitySPIRE, dir
	st.SPIREPort, err = control.FreePort(st.Host)
	return err
}

// fill writes everything below f. It writes the settings last, because they make the folder a lab.
func (r *Runtime) fill(
	ctx context.Context,
	f folder,
	topo *topology.Topology,
	text []byte,
	st settings,
	geminiKey string,
) error {
	database, err := databaseAccount()
	if err != nil {
		return err
	}
	for _, dir := range []string{
		string(f.StateDir), f.Path("bin"), f.Path("w"), string(f.Keys("")), string(f.postgres()),
	} {
		if err := os.Mkdir(dir, 0o711); err != nil {
			return err
		}
	}
	if err := os.Mkdir(f.Logs(), 0o700); err != nil {
		return err
	}
	if err := f.WriteTopology(text); err != nil {
		return err
	}
	pg := f.postgres()
	for _, dir := range []string{pg.Path("run"), pg.Path("tls")} {
		if err := makeFolder(dir, database); err != nil {
			return err
		}
	}
	from, err := template(ctx, st.Postgres, database, r.Lookup)
	if err != nil {
		return err
	}
	if err := copyTree(ctx, from, pg.Path("data"), database); err != nil {
		return err
	}
	secrets := map[string]string{}
	for i, w := range topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		if err := placeBinary(r.built(w), f.binary(w.Name)); err != nil {
			return err
		}
		who := workloadAccount(st, i)
		if w.Kind == topology.KindDatabase {
			who = database
		}
		files := map[string]string{}
		if w.Source != "" {
			if secrets[w.Source] == "" {
				secrets[w.Source] = token()
			}
			files["source.secret"] = secrets[w.Source]
		}
		if w.Kind == topology.KindGateway {
			files["gemini.key"] = geminiKey
		}
		if w.Kind == topology.KindDashboard && st.Provider.Secret != "" {
			files["oidc.secret"] = st.Provider.Secret
		}
		keys := f.Keys(w.Name)
		if err := shareFolder(string(keys), who); err != nil {
			return err
		}
		for name, content := range files {
			if err := share(keys.Path(name), []byte(content+"\n"), who); err != nil {
				return err
			}
		}
		own := f.Of(w.Name)
		if err := errors.Join(
			os.Mkdir(string(own), 0o700),
			makeFolder(own.Path("state"), who),
			give(string(own), who),
		); err != nil {
			return err
		}
	}
	return f.Write(st)
}

// placeBinary gives each row a program path of its own, by which SPIRE can tell the workloads apart.
func placeBinary(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	return copyFile(from, to, 0o755, account{uid: os.Geteuid()})
}

func token() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// start makes sure that a supervisor runs, and waits until everything is ready.
func (r *Runtime) start(ctx context.Context, l *control.Lab) error {
	if _, err := l.Status(ctx); err != nil {
		if err := endStrays(folder{l.StateDir()}); err != nil {
			return err
		}
		if err := l.Spawn(ctx, r.Self); err != nil {
			return err
		}
	}
	return l.AwaitReady(ctx, 60*time.Second)
}

// down ends a lab and removes it. It works without a supervisor.
func down(ctx context.Context, l *control.Lab) ([]string, error) {
	var removed []string
	f := folder{l.StateDir()}
	running := remembered(f)
	if err := l.End(ctx); err == nil {
		if err := awaitEnd(ctx, running[supervisorName], 30*time.Second); err != nil {
			return nil, &lab.Error{Code: lab.ExitTimeout, What: "end the supervisor", Why: err, Log: f.Log()}
		}
	}
	if err := endStrays(f); err != nil {
		return nil, err
	}
	for name, pid := range running {
		removed = append(removed, fmt.Sprintf("process %s (%d)", name, pid))
	}
	more, err := f.Remove()
	return append(removed, more...), err
}
