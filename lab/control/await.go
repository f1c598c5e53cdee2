package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/security-training/lab"
)

// mostRestarts is how many times a process may end while it is waited for. After that, waiting is in vain.
const mostRestarts = 5

// AwaitReady waits until every workload is ready. If that does not happen within patience, the error says which
// workload is not ready, and why.
func (l *Lab) AwaitReady(ctx context.Context, patience time.Duration) error {
	return (&readiness{lab: l, what: "start the workloads", route: "/v1/ready"}).await(ctx, patience)
}

// AwaitWorkload is AwaitReady for one workload. It ignores the others.
func (l *Lab) AwaitWorkload(ctx context.Context, workload string, patience time.Duration) error {
	route := "/v1/ready?workload=" + url.QueryEscape(workload)
	return (&readiness{lab: l, what: "start " + workload, workload: workload, route: route}).await(ctx, patience)
}

// readiness waits for one workload of a lab, or for all of them.
type readiness struct {
	lab      *Lab
	what     string // for an error
	workload string // "": all
	route    string // answers once that is ready, or else after two seconds
}

// late lists what is not ready of what is waited for.
func (r *readiness) late(st lab.Status) []notReady {
	list := unready(st)
	if r.workload == "" {
		return list
	}
	return slices.DeleteFunc(list, func(u notReady) bool { return u.name != r.workload })
}

func (r *readiness) await(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	st, err := r.lab.Status(ctx)
	if err != nil {
		return err
	}
	before := restarts(st) // a pod that has lived long has some already
	for !readyIn(st, r.workload) {
		late := r.late(st)
		for _, u := range late {
			if u.restarts-before[u.name] >= mostRestarts {
				return r.failed(lab.ExitPartly, "start "+u.name, errors.New("it ends again and again"), u.name)
			}
		}
		if err := r.lab.admin.call(ctx, http.MethodGet, r.route, nil, &st); err != nil {
			if len(late) > 0 && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return r.failed(lab.ExitTimeout, r.what, notInTime(late), late[0].name)
			}
			log := r.lab.folder.Log()
			return &lab.Error{Code: lab.ExitPartly, What: r.what, Why: err, Log: log, Last: LastLines(log, 5)}
		}
	}
	return nil
}

// failed returns an error that shows the end of a workload's log.
func (r *readiness) failed(code int, what string, why error, workload string) error {
	log := r.lab.folder.WorkloadLog(workload)
	return &lab.Error{Code: code, What: what, Why: why, Log: log, Last: LastLines(log, 5), Try: "lab logs " + workload}
}

// readyIn says whether the workload called name is ready, or all of them if name is "".
func readyIn(st lab.Status, name string) bool {
	if name == "" {
		return st.Healthy
	}
	return slices.ContainsFunc(st.Workloads, func(w lab.WorkloadStatus) bool { return w.Name == name && w.Ready })
}

// notReady is a workload that is not ready, or a process below the workloads that does not run.
type notReady struct {
	name, why string
	restarts  int
}

// unready lists what is not ready: first the processes on which the workloads depend.
func unready(st lab.Status) []notReady {
	var list []notReady
	for _, p := range st.Processes {
		if p.Why != "" {
			list = append(list, notReady{p.Name, p.Why, p.Restarts})
		}
	}
	for _, w := range st.Workloads {
		if !w.Ready {
			list = append(list, notReady{w.Name, w.Why, w.Restarts})
		}
	}
	return list
}

// restarts returns how often each process of st has been restarted, by name.
func restarts(st lab.Status) map[string]int {
	counts := map[string]int{}
	for _, p := range st.Processes {
		counts[p.Name] = p.Restarts
	}
	for _, w := range st.Workloads {
		counts[w.Name] = w.Restarts
	}
	return counts
}

// notInTime is the error that names all that is late.
func notInTime(late []notReady) error {
	var parts []string
	for _, u := range late {
		parts = append(parts, u.name+" ("+u.why+")")
	}
	return fmt.Errorf("not ready in time: %s", strings.Join(parts, "; "))
}
