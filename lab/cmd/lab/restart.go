package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/kind"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/seed"
)

// supervisorName is the name of a lab's supervisor where a workload's name may stand.
const supervisorName = "supervisor"

// restarted is the result of `lab restart`. Its JSON keys are a contract.
type restarted struct {
	Workload string  `json:"workload"`
	Renewed  bool    `json:"renewed"` // it got a program that was built since it was started
	Program  string  `json:"program"` // the build that it runs now
	Seconds  float64 `json:"seconds"` // until it was ready again
}

func restartCommand(s *settings) *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use: "restart WORKLOAD", Short: "Start a workload again, with the program that was built last",
		Args:    cobra.ExactArgs(1),
		Example: "  lab restart risk-scorer\n  lab restart lms -o json\n  lab restart supervisor",
		Long: `Ends a workload of the running lab and starts it again, waits until it is ready, and says how long that took.
If its program was built since it was started ("make build"), it gets that one. The others go on; the
supervisor's chain of decisions tells of it.

"supervisor" is the lab's own program: with it every workload ends and is started again. What the lab keeps stays.

On Kubernetes the pod is made again, of the same image. A program that was built since gets there in an image:
with kind by "lab up", in another cluster by "lab up" with another LAB_APP_IMAGE.`,
		RunE: func(c *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("%w: -o %q: want text or json", errUsage, format)
			}
			done, err := restart(c.Context(), s, args[0])
			if err != nil {
				return err
			}
			return writeRestarted(c.OutOrStdout(), s, done, format)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return c
}

func writeRestarted(w io.Writer, s *settings, done restarted, format string) error {
	if format == "json" {
		return json.NewEncoder(w).Encode(done)
	}
	how := "the same program as before"
	if done.Renewed {
		how = "the program that was built last"
	}
	s.progress().Say("%s runs %s, and is ready after %.1f s", done.Workload, how, done.Seconds)
	return nil
}

// restart restarts a workload of the running lab, or the supervisor, with the program that was built last.
func restart(ctx context.Context, s *settings, name string) (restarted, error) {
	l, err := find(ctx, s)
	if err != nil {
		return restarted{}, err
	}
	st, err := l.Status(ctx)
	if err != nil {
		return restarted{}, err
	}
	if name != supervisorName {
		if err := workloadOf(st, name); err != nil {
			return restarted{}, err
		}
	}
	binaries, err := findBinaries(ctx, s.progress())
	if err != nil {
		return restarted{}, err
	}
	all, err := runtimes(binaries)
	if err != nil {
		return restarted{}, err
	}
	begun := time.Now()
	if name == supervisorName {
		err = restartSupervisor(ctx, s, all[st.Runtime], l, st)
	} else {
		err = restartWorkload(ctx, s, all[st.Runtime], l, name)
	}
	if err == nil && st.Seeded {
		err = goOn(ctx, l, st.Spec)
	}
	if err != nil {
		return restarted{}, err
	}
	now, err := l.Status(ctx)
	if err != nil {
		return restarted{}, err
	}
	was, is := programOf(st, name), programOf(now, name)
	return restarted{Workload: name, Renewed: was != is, Program: is, Seconds: time.Since(begun).Seconds()}, nil
}

// programOf returns the build that a workload or the supervisor runs.
func programOf(st lab.Status, name string) string {
	for _, w := range st.Workloads {
		if w.Name == name {
			return w.Program
		}
	}
	for _, p := range st.Processes {
		if p.Name == name {
			return p.Program
		}
	}
	return ""
}

// workloadOf checks that st has a workload called name. The error lists those that exist.
func workloadOf(st lab.Status, name string) error {
	var names []string
	for _, w := range st.Workloads {
		names = append(names, w.Name)
	}
	if slices.Contains(names, name) {
		return nil
	}
	return fmt.Errorf("%w: there is no workload %q; there are %s", errUsage, name, strings.Join(names, ", "))
}

// localWorkload returns the workload called name of a lab of the local runtime. For a lab of another runtime it returns
// refusal, to which it adds the exit code and the name of the runtime.
func localWorkload(ctx context.Context, l *control.Lab, name string, refusal lab.Error) (lab.WorkloadStatus, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return lab.WorkloadStatus{}, err
	}
	if err := workloadOf(st, name); err != nil {
		return lab.WorkloadStatus{}, err
	}
	if st.Runtime != local.RuntimeName {
		refusal.Code = lab.ExitPrecondition
		refusal.Why = fmt.Errorf("in a lab of the %s runtime %w", st.Runtime, refusal.Why)
		return lab.WorkloadStatus{}, &refusal
	}
	i := slices.IndexFunc(st.Workloads, func(w lab.WorkloadStatus) bool { return w.Name == name })
	return st.Workloads[i], nil
}

func restartWorkload(ctx context.Context, s *settings, r lab.Runtime, l *control.Lab, name string) error {
	if here, ok := r.(*local.Runtime); ok {
		return here.Renew(ctx, l, []string{name}, progress.Quiet{})
	}
	if in, ok := r.(*kind.Runtime); ok {
		outdated, err := in.Outdated(ctx, l)
		if err != nil {
			return err
		}
		if slices.Contains(outdated, name) {
			s.progress().Say("what was built is not in the cluster's image: lab up%s takes it there", nameFlag(s))
		}
	}
	if err := l.Restart(ctx, name); err != nil {
		return err
	}
	return l.AwaitWorkload(ctx, name, 5*time.Minute) // a node may have to pull the image
}

func restartSupervisor(ctx context.Context, s *settings, r lab.Runtime, l *control.Lab, st lab.Status) error {
	here, ok := r.(*local.Runtime)
	if !ok {
		return &lab.Error{
			Code: lab.ExitPrecondition,
			What: "restart the supervisor",
			Why:  fmt.Errorf("in a lab of the %s runtime it can only be started together with the lab", st.Runtime),
			Try:  fmt.Sprintf("lab down%[1]s, then lab up%[1]s", nameFlag(s)),
		}
	}
	return here.RestartSupervisor(ctx, l)
}

// goOn has the simulators go on with ordinary days. A simulator that was restarted does not do so by itself.
func goOn(ctx context.Context, l lab.Lab, spec lab.Spec) error {
	inside, ok := l.(*control.Lab)
	if !ok {
		return errors.New("go on: it is not a lab of this machine")
	}
	op, err := operator.Enter(ctx, inside)
	if err != nil {
		return err
	}
	return seed.Live(ctx, op, spec)
}

// takeUp gives a healthy lab the programs that were built since it was started, and returns which workloads got one.
func takeUp(ctx context.Context, r lab.Runtime, l lab.Lab, p progress.Reporter) ([]string, error) {
	renewer, ok := r.(lab.Renewer)
	if !ok {
		return nil, nil // LAB_APP_IMAGE alone decides what runs in a cluster
	}
	outdated, err := renewer.Outdated(ctx, l)
	if err != nil || len(outdated) == 0 {
		return nil, err
	}
	return outdated, renewer.Renew(ctx, l, outdated, p)
}

// sayWhatRuns says which workloads of a healthy lab got a new program, or that there was nothing to do.
func sayWhatRuns(s *settings, st lab.Status, renewed []string, begun time.Time) {
	p := s.progress()
	if len(renewed) > 0 {
		p.Say("%s is up and healthy at %s: %s took up what was built (%.1f s)",
			st.Name, st.Dashboard, strings.Join(renewed, ", "), time.Since(begun).Seconds())
	} else {
		p.Say("%s is up and healthy at %s: nothing to do (%.0f ms)", st.Name, st.Dashboard, time.Since(begun).Seconds()*1000)
	}
	if st.Runtime == local.RuntimeName && local.SupervisorIsOutdated(st) {
		p.Say("its supervisor runs another build of lab than this one: lab restart supervisor%s takes this one up, "+
			"and starts every workload again", nameFlag(s))
	}
}
