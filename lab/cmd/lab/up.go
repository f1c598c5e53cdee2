package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/kind"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/seed"
	"example.org/security-training/services/env"
)

const module = "example.org/security-training"

func nameFlag(s *settings) string {
	if s.name == "lab" {
		return ""
	}
	return " --name " + s.name
}

func superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "supervise FOLDER", Short: "Run a lab's supervisor (up does this)", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return supervise(c.Context(), args[0]) },
	}
}

func upCommand(s *settings) *cobra.Command {
	spec := lab.Spec{}
	runtime := ""
	c := &cobra.Command{
		Use: "up", Short: "Bring everything up, or repair it; a healthy lab is left alone", Args: cobra.NoArgs,
		Example: "  lab up\n  lab up --name second --people 200 --seed 7",
		Long: `Brings a lab up: database, identities, workloads, thirty days of history, a dashboard that serves a signed-in
page. Safe to repeat: it resumes what was interrupted, repairs what is broken, and leaves a healthy lab alone.
Workloads whose programs were built since they were started get them, one after another. Where no flag chooses, a lab
that is there stays as it was made.

With LAB_PPROF=1 in the environment each workload serves Go's profiles on a socket that only you can open; "lab debug
WORKLOAD" says where. It is for the local runtime.

With LMS_DEV_DIR=$PWD/services/lms/site in the environment, a lab of the local runtime reads its pages' templates,
styles and scripts from that folder at each request: edit one and reload the page. An instructor sees in which line a
template is wrong.`,
		RunE: func(c *cobra.Command, _ []string) error {
			spec.Name = s.name
			if is, err := existing(s.name); err == nil {
				keepUnchosen(c.Flags().Changed, &spec, is.Spec)
			} else if !errors.Is(err, lab.ErrNone) {
				return err
			}
			if err := checkSpec(spec, runtime); err != nil {
				return err
			}
			return up(c.Context(), s, spec, runtime, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&runtime, "runtime", runtimeAuto, "auto, local, kind or cluster")
	f.StringVar(&spec.Identity, "identity", "auto", "who issues identities: auto, embedded or spire")
	f.IntVar(&spec.People, "people", lab.DefaultPeople, "how many people work there, 2 to 5000")
	f.Uint64Var(&spec.Seed, "seed", 42, "the company's seed: the same seed is the same company")
	f.Float64Var(&spec.Pace, "pace", 10, "after the history: how many seconds of the lab pass in one, 0.1 to 3600")
	f.StringVar(
		&spec.Listen,
		"listen",
		"",
		"serve the dashboard by HTTPS, and nothing else, to a room: an address, with or without a port",
	)
	f.IntVar(&spec.Days, "days", lab.DefaultDays, "days of history, 1 to 90")
	return c
}

// keepUnchosen sets every field of spec for which no flag is given to that of the existing lab, so that `lab up`
// repairs a lab as it is.
func keepUnchosen(chosen func(flag string) bool, spec *lab.Spec, is lab.Spec) {
	for name, keep := range map[string]func(){
		"identity": func() { spec.Identity = is.Identity },
		"people":   func() { spec.People = is.People },
		"seed":     func() { spec.Seed = is.Seed },
		"pace":     func() { spec.Pace = is.Pace },
		"listen":   func() { spec.Listen = is.Listen },
		"days":     func() { spec.Days = is.Days },
	} {
		if !chosen(name) {
			keep()
		}
	}
}

func checkSpec(spec lab.Spec, runtime string) error {
	var faults []error
	if !slices.Contains([]string{runtimeAuto, local.RuntimeName, kind.RuntimeName, cluster.RuntimeName}, runtime) {
		faults = append(faults, fmt.Errorf("--runtime %q: want auto, local, kind or cluster", runtime))
	}
	if !slices.Contains([]string{"auto", "embedded", "spire"}, spec.Identity) {
		faults = append(faults, fmt.Errorf("--identity %q: want auto, embedded or spire", spec.Identity))
	}
	if spec.People < 2 || spec.People > 5000 {
		faults = append(faults, fmt.Errorf("--people %d: want 2 to 5000", spec.People))
	}
	if spec.Days < 1 || spec.Days > 90 {
		faults = append(faults, fmt.Errorf("--days %d: want 1 to 90", spec.Days))
	}
	if spec.Pace < 0.1 || spec.Pace > 3600 {
		faults = append(faults, fmt.Errorf("--pace %g: want 0.1 to 3600", spec.Pace))
	}
	if host, _, err := net.SplitHostPort(spec.Listen); spec.Listen != "" && net.ParseIP(spec.Listen) == nil &&
		(err != nil || net.ParseIP(host) == nil) {
		faults = append(
			faults,
			fmt.Errorf(
				"--listen %q: want an IP address, with or without a port; 0.0.0.0 is every one of this machine",
				spec.Listen,
			),
		)
	}
	if spec.Seed == 0 {
		faults = append(faults, errors.New("--seed 0: want a number from 1"))
	}
	if spec.Identity == "embedded" && (runtime == kind.RuntimeName || runtime == cluster.RuntimeName) {
		faults = append(faults, errors.New("--identity embedded: on Kubernetes SPIRE issues identities"))
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", errUsage, errors.Join(faults...))
	}
	return nil
}

// up brings a lab up, repairs one that is broken, and leaves a healthy one alone.
func up(ctx context.Context, s *settings, spec lab.Spec, asked string, out io.Writer) error {
	p := s.progress()
	start := time.Now()
	r, name, why, err := chooseRuntime(ctx, spec, asked, p)
	if err != nil {
		return err
	}
	if done, err := leaveHealthy(ctx, s, r, spec, start); done || err != nil {
		return err
	}
	p.Say("runtime %s: %s", name, why)
	l, err := bringUp(ctx, s, r, spec, p)
	if err != nil {
		return err
	}
	return writeUp(ctx, s, l, start, out)
}

// chooseRuntime chooses the runtime for a lab, and refuses settings of the environment that it does not support. It
// builds the programs if they are missing.
func chooseRuntime(
	ctx context.Context,
	spec lab.Spec,
	asked string,
	p progress.Reporter,
) (r lab.Runtime, name, why string, err error) {
	binaries, err := findBinaries(ctx, p)
	if err != nil {
		return nil, "", "", err
	}
	all, err := runtimes(binaries)
	if err != nil {
		return nil, "", "", err
	}
	if spec.Identity == "embedded" && asked == runtimeAuto {
		asked = local.RuntimeName // the only runtime with the embedded issuer
	}
	if name, why, err = choose(ctx, asked, spec.Name, all); err != nil {
		return nil, "", "", err
	}
	if err := checkPprof(name); err != nil {
		return nil, "", "", err
	}
	return all[name], name, why, checkDevDir(name)
}

// leaveHealthy handles a lab that is up, healthy and seeded: it only gives workloads the programs that were built
// since, and has the simulators go on. It returns false, and does nothing, if there is no such lab.
func leaveHealthy(
	ctx context.Context,
	s *settings,
	r lab.Runtime,
	spec lab.Spec,
	start time.Time,
) (done bool, err error) {
	l, err := r.Find(ctx, spec.Name)
	if err != nil {
		return false, nil
	}
	st, err := l.Status(ctx)
	if err != nil || !st.Healthy || !st.Seeded || !control.StateDir(st.Folder).Milestones().Proven() {
		return false, nil
	}
	if err := control.StateDir(st.Folder).Same(env.Process, spec); err != nil {
		return false, err
	}
	renewed, err := takeUp(ctx, r, l, s.progress())
	if err != nil {
		return false, err
	}
	if err := goOn(ctx, l, spec); err != nil {
		return false, err
	}
	sayWhatRuns(s, st, renewed, start)
	return true, nil
}

// bringUp has the runtime make or repair the lab, then delivers its history and checks it from end to end.
func bringUp(
	ctx context.Context,
	s *settings,
	r lab.Runtime,
	spec lab.Spec,
	p progress.Reporter,
) (*control.Lab, error) {
	folder, err := control.StateDirOf(env.Process, spec.Name)
	if err != nil {
		return nil, err
	}
	var found lab.Lab
	err = local.OnDisk(ctx, folder, func(ctx context.Context) (err error) {
		found, err = r.Up(ctx, spec, p)
		return err
	})
	if ctx.Err() != nil {
		const text = "interrupted: `lab up%[1]s` goes on with what is there, `lab down%[1]s` removes it"
		return nil, fmt.Errorf(text, nameFlag(s))
	}
	if err != nil {
		return nil, err
	}
	l := found.(*control.Lab)
	err = local.OnDisk(ctx, folder, func(ctx context.Context) error { return seedAndProve(ctx, l, spec, p) })
	if err != nil && ctx.Err() != nil {
		const text = "%[1]w\n  the lab is up without all of its history: `lab up%[2]s` goes on, `lab down%[2]s` removes it"
		return nil, fmt.Errorf(text, err, nameFlag(s))
	}
	return l, err
}

// writeUp says how a lab came up, and prints its addresses and a sign-in link.
func writeUp(ctx context.Context, s *settings, l *control.Lab, start time.Time, out io.Writer) error {
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	link, err := linkFor(ctx, l, "")
	if err != nil {
		return err
	}
	issuer := "by the lab itself"
	if st.Identity == "spire" {
		issuer = "by SPIRE"
	}
	s.progress().Say(
		"\n%s is up in %.1f s; identity is issued %s; isolation: %s\n",
		st.Name,
		time.Since(start).Seconds(),
		issuer,
		st.Isolated,
	)
	fmt.Fprintf(out, "dashboard   %s\nsign in as the instructor, once:\n            %s\n", st.Dashboard, link)
	if st.Spec.Listen != "" {
		const room = "for a room  %s\n            (links for a class: lab link --class FILE%s)\n"
		fmt.Fprintf(out, room, st.Room, nameFlag(s))
	}
	s.progress().Say(
		"\nnext:       lab play leaked-secret%[1]s\n            lab matrix%[1]s\n            lab down%[1]s",
		nameFlag(s),
	)
	return nil
}

// seedAndProve delivers the history, unless that has been done, and checks that the lab works from end to end: the
// dashboard serves a page to a person who signed in, and a probe event is scored.
func seedAndProve(ctx context.Context, l *control.Lab, spec lab.Spec, p progress.Reporter) error {
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	op, err := operator.Enter(ctx, l)
	if err != nil {
		return err
	}
	if !st.Seeded {
		position, err := seed.History(ctx, op, spec, p)
		if err != nil {
			return err
		}
		if err := op.SetPace(ctx, spec.Pace); err != nil {
			return err
		}
		if err := l.StateDir().Milestones().MarkSeeded(position); err != nil {
			return fmt.Errorf("remember the history: %w", err)
		}
	}
	if err := seed.Live(ctx, op, spec); err != nil {
		return err
	}
	return progress.Step(p, "dashboard serves a signed-in page, a probe event is scored", func() error {
		if err := seed.Prove(ctx, op, st.Dashboard, spec); err != nil {
			return err
		}
		return l.StateDir().Milestones().MarkProven()
	})
}
