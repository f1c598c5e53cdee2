package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

var _ lab.Renewer = (*Runtime)(nil)

// renewed is how long a workload may take to be ready with a new program.
const renewed = 60 * time.Second

// built is the path of the latest build of a row's program.
func (r *Runtime) built(w topology.Workload) string { return filepath.Join(r.Binaries, w.Binary) }

// Program is the file in the lab's folder from which a workload of l is started.
func Program(l *control.Lab, workload string) string { return folder{l.StateDir()}.binary(workload) }

// rows returns the rows of a lab that have a program, in the topology's order.
func rows(l *control.Lab) ([]topology.Workload, error) {
	topo, err := lab.PolicyInForce(l)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(topo.Workloads), func(w topology.Workload) bool { return w.Binary == "" }), nil
}

// Outdated implements lab.Renewer. It compares with what the supervisor started, not with the lab's folder, because an
// earlier `up` may have been interrupted between the two.
func (r *Runtime) Outdated(ctx context.Context, l lab.Lab) ([]string, error) {
	here := l.(*control.Lab)
	all, err := rows(here)
	if err != nil {
		return nil, err
	}
	runs := map[string]string{}
	if st, err := here.Status(ctx); err == nil { // otherwise nothing runs, and the folder's programs count
		for _, w := range st.Workloads {
			runs[w.Name] = w.Program
		}
	}
	f, ids := folder{here.StateDir()}, map[string]string{}
	var out []string
	for _, w := range all {
		if _, ok := ids[w.Binary]; !ok {
			ids[w.Binary] = programID(r.built(w))
		}
		is := runs[w.Name]
		if is == "" { // supervisors of older versions do not say
			is = programID(f.binary(w.Name))
		}
		if ids[w.Binary] != "" && ids[w.Binary] != is {
			out = append(out, w.Name)
		}
	}
	return out, nil
}

// Renew implements lab.Renewer.
func (r *Runtime) Renew(ctx context.Context, l lab.Lab, workloads []string, p progress.Reporter) error {
	here := l.(*control.Lab)
	alone, err := here.StateDir().Alone(ctx, p)
	if err != nil {
		return err
	}
	defer alone.Close()
	for _, name := range workloads {
		err := progress.Step(p, name+" takes up what was built", func() error {
			if err := r.renew(ctx, here, name); err != nil {
				return err
			}
			return here.AwaitWorkload(ctx, name, renewed)
		})
		if err != nil {
			return olderPolicy(here, err)
		}
	}
	return here.AwaitReady(ctx, renewed) // other workloads may have to connect again
}

// renew gives a workload the latest build of its program, unless it has it already, and restarts the workload.
func (r *Runtime) renew(ctx context.Context, l *control.Lab, name string) error {
	id, err := r.place(l, name)
	if err != nil {
		return err
	}
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	for _, w := range st.Workloads {
		if w.Name == name && (w.Program == "" || w.Program == id) { // "": the supervisor is older than the field
			id = ""
		}
	}
	return l.RestartWith(ctx, name, id)
}

// place copies the latest build of a program into the lab's folder, unless it is there already, and returns the build.
func (r *Runtime) place(l *control.Lab, name string) (string, error) {
	all, err := rows(l)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(w topology.Workload) bool { return w.Name == name })
	if i < 0 {
		return "", fmt.Errorf("renew %s: topology lists no such workload", name)
	}
	to := folder{l.StateDir()}.binary(name)
	if id := programID(to); id != "" && id == programID(r.built(all[i])) {
		return id, nil
	}
	return placeProgram(r.built(all[i]), to)
}

// takeUp renews what is outdated of an existing lab. If the lab is not healthy, takeUp does not wait after each
// workload: workloads depend on each other, and one of the new programs may be the repair.
func (r *Runtime) takeUp(ctx context.Context, l *control.Lab, healthy bool, p progress.Reporter) error {
	outdated, err := r.Outdated(ctx, l)
	if err != nil || len(outdated) == 0 {
		return err
	}
	if healthy {
		return r.Renew(ctx, l, outdated, p)
	}
	alone, err := l.StateDir().Alone(ctx, p)
	if err != nil {
		return err
	}
	defer alone.Close()
	_, gone := l.Status(ctx)
	for _, name := range outdated {
		if gone != nil {
			_, err = r.place(l, name)
		} else {
			err = r.renew(ctx, l, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// olderPolicy adds a hint to err if the lab was made with another policy than the built programs have. A program does
// not work with a policy that lists other routes.
func olderPolicy(l *control.Lab, err error) error {
	var e *lab.Error
	was, readErr := os.ReadFile(l.Shipped())
	if !errors.As(err, &e) || readErr != nil || bytes.Equal(was, manifests.Topology()) {
		return err
	}
	more := *e
	more.Why = fmt.Errorf("%w; the lab was made with an older topology.yaml than what was built comes with", e.Why)
	more.Try = "lab down, then lab up"
	return &more
}

// RestartSupervisor ends the lab's supervisor with all workloads, and starts the supervisor that Self names. Each
// workload gets the latest build of its program. The lab's data stays.
func (r *Runtime) RestartSupervisor(ctx context.Context, l *control.Lab) error {
	alone, err := l.StateDir().Alone(ctx, progress.Quiet{})
	if err != nil {
		return err
	}
	defer alone.Close()
	f := folder{l.StateDir()}
	pid := remembered(f)[supervisorName]
	if err := l.End(ctx); err != nil && !control.Gone(err) {
		return fmt.Errorf("end the supervisor: %w", err)
	}
	if err := awaitEnd(ctx, pid, 30*time.Second); err != nil {
		return &lab.Error{Code: lab.ExitTimeout, What: "end the supervisor", Why: err, Log: f.Log()}
	}
	outdated, err := r.Outdated(ctx, l)
	if err != nil {
		return err
	}
	for _, name := range outdated {
		if _, err := r.place(l, name); err != nil {
			return err
		}
	}
	return olderPolicy(l, r.start(ctx, l))
}

// SupervisorIsOutdated says whether the supervisor of the lab is another build than this process. A supervisor that
// does not say which build it is, is older.
func SupervisorIsOutdated(st lab.Status) bool {
	is := ""
	for _, p := range st.Processes {
		if p.Name == supervisorName {
			is = p.Program
		}
	}
	own := programID(runningProgram)
	return own != "" && is != own
}
