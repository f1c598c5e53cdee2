package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
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
	"example.org/security-training/manifests"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/nearest"
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

// keepUnchosen gives spec what the lab that is there was made with, wherever no flag is given: `lab up` repairs it as
// it is.
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

// up brings a lab up from nothing, from pieces, or finds that there is nothing to do.
func up(ctx context.Context, s *settings, spec lab.Spec, asked string, out io.Writer) error {
	p := s.progress()
	start := time.Now()
	binaries, err := findBinaries(ctx, p)
	if err != nil {
		return err
	}
	all, err := runtimes(binaries)
	if err != nil {
		return err
	}
	if spec.Identity == "embedded" && asked == runtimeAuto {
		asked = local.RuntimeName // the only one that has it
	}
	name, why, err := choose(ctx, asked, spec.Name, all)
	if err != nil {
		return err
	}
	if err := checkPprof(name); err != nil {
		return err
	}
	if err := checkDevDir(name); err != nil {
		return err
	}
	r := all[name]
	if l, err := r.Find(ctx, spec.Name); err == nil {
		if st, err := l.Status(ctx); err == nil && st.Healthy && st.Seeded && control.StateDir(st.Folder).Proven() {
			if err := control.StateDir(st.Folder).Same(env.Process, spec); err != nil {
				return err
			}
			renewed, err := takeUp(ctx, r, l, p)
			if err != nil {
				return err
			}
			if err := goOn(ctx, l, spec); err != nil {
				return err
			}
			sayWhatRuns(s, st, renewed, start)
			return nil
		}
	}
	p.Say("runtime %s: %s", name, why)
	folder, err := control.StateDirOf(env.Process, spec.Name)
	if err != nil {
		return err
	}
	var found lab.Lab
	err = local.OnDisk(ctx, folder, func(ctx context.Context) (err error) {
		found, err = r.Up(ctx, spec, p)
		return err
	})
	if ctx.Err() != nil {
		return fmt.Errorf(
			"interrupted: `lab up%s` goes on with what is there, `lab down%s` removes it",
			nameFlag(s),
			nameFlag(s),
		)
	}
	if err != nil {
		return err
	}
	l := found.(*control.Lab)
	err = local.OnDisk(ctx, folder, func(ctx context.Context) error { return settle(ctx, l, spec, p) })
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf(
				"%w\n  the lab is up without all of its history: `lab up%s` goes on, `lab down%s` removes it",
				err,
				nameFlag(s),
				nameFlag(s),
			)
		}
		return err
	}
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	link, err := linkFor(ctx, l, "")
	if err != nil {
		return err
	}
	who := "by the lab itself"
	if st.Identity == "spire" {
		who = "by SPIRE"
	}
	p.Say(
		"\n%s is up in %.1f s; identity is issued %s; isolation: %s\n",
		spec.Name,
		time.Since(start).Seconds(),
		who,
		st.Isolated,
	)
	fmt.Fprintf(out, "dashboard   %s\nsign in as the instructor, once:\n            %s\n", st.Dashboard, link)
	if st.Spec.Listen != "" {
		const room = "for a room  %s\n            (links for everybody: lab link --class FILE%s)\n"
		fmt.Fprintf(out, room, st.Room, nameFlag(s))
	}
	p.Say(
		"\nnext:       lab play leaked-secret%s\n            lab matrix%s\n            lab down%s",
		nameFlag(s),
		nameFlag(s),
		nameFlag(s),
	)
	return nil
}

// settle delivers the history, if that has not been done, and proves that the lab works: a signed-in page is served and
// a probe event is scored.
func settle(ctx context.Context, l *control.Lab, spec lab.Spec, p progress.Reporter) error {
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
		if err := l.MarkSeeded(position); err != nil {
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
		return l.MarkProven()
	})
}

// findBinaries looks for the services' programs beside this one, and builds them if this is a checkout.
func findBinaries(ctx context.Context, p progress.Reporter) (string, error) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find myself: %w", err)
	}
	dir := filepath.Dir(self)
	missing := ""
	for _, w := range topo.Workloads {
		if w.Binary == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, w.Binary)); err != nil {
			missing = w.Binary
		}
	}
	if missing == "" {
		return dir, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find the services' programs",
			Why:  fmt.Errorf("%s is not in the folder of %s, and %w", missing, self, err),
			Try:  "make build && bin/lab up",
		}
	}
	bin := filepath.Join(root, "bin")
	const what = "compile the services (minutes the first time, then seconds)"
	err = progress.Step(p, what, func() error { return build(ctx, root, bin) })
	return bin, err
}

func build(ctx context.Context, root, bin string) error {
	args := append(buildArgs(), "-o", bin+string(filepath.Separator), "./services/cmd/...", "./synth/cmd/...")
	if _, err := goCommand(ctx, root, args...); err != nil {
		return &lab.Error{Code: lab.ExitPrecondition, What: "build the services", Why: err}
	}
	return nil
}

// moduleRoot is the checkout that the current folder is in.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module "+module+"\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is not a checkout to build them from")
		}
		dir = filepath.Dir(dir)
	}
}

func statusCommand(s *settings) *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use: "status", Short: "Show each workload: state, address, SPIFFE ID, expiry of its SVID", Args: cobra.NoArgs,
		Example: "  lab status\n  lab status -o json | jq -r '.workloads[].spiffe_id'\n  eval \"$(lab status -o env)\"",
		Long:    "Shows each workload. Exits with 0 only if all is well.",
		RunE: func(c *cobra.Command, _ []string) error {
			if formats := []string{"text", "json", "env"}; !slices.Contains(formats, format) {
				hint := nearest.Hint(format, formats)
				return fmt.Errorf("%w: -o %q: want text, json or env%s", errUsage, format, hint)
			}
			l, err := find(c.Context(), s)
			if err != nil {
				return err
			}
			st, err := l.Status(c.Context())
			if err != nil {
				return err
			}
			_, policy := lab.RunningPolicy(l)
			wrong := counted(c.Context(), l, &st)
			if err := writeStatus(c.OutOrStdout(), st, format); err != nil {
				return err
			}
			switch {
			case !st.Healthy:
				wrong = errors.New("not every workload is ready")
			case !st.Seeded:
				wrong = errors.New("the history has not been delivered")
			}
			if wrong != nil {
				wrong = &lab.Error{Code: lab.ExitPartly, What: "status", Why: wrong, Try: "lab up" + nameFlag(s)}
			}
			return errors.Join(wrong, policy)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text, json or env")
	return c
}

// counted fills in how far events have come, if every workload is ready.
func counted(ctx context.Context, l *control.Lab, st *lab.Status) error {
	if !st.Healthy {
		return nil
	}
	o, err := operator.Enter(ctx, l)
	if err != nil {
		return err
	}
	st.Counts, err = o.Counts(ctx)
	return err
}

// givenUp says in words why a collector gave an event up, by the reasons of the scorer's receipts.
var givenUp = map[string]string{
	activity.TooFarAhead:    "they are dated too far ahead of the lab's clock (lab status shows its time)",
	activity.InvalidEvent:   "they are not valid events",
	activity.CannotBeStored: "the database did not take them",
}

func writeStatus(w io.Writer, st lab.Status, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(st)
	case "env":
		_, err := fmt.Fprintf(
			w,
			"LAB_NAME=%s\nLAB_DASHBOARD=%s\nLAB_FOLDER=%s\nLAB_RUNTIME=%s\n",
			lab.Quoted(st.Name),
			lab.Quoted(st.Dashboard),
			lab.Quoted(st.Folder),
			lab.Quoted(st.Runtime),
		)
		return err
	case "text":
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "%s\t%s runtime, %s identity\t%s\n\n", st.Name, st.Runtime, st.Identity, st.Isolated)
		fmt.Fprintln(t, "WORKLOAD\tSTATE\tADDRESS\tSPIFFE ID\tSVID ENDS IN")
		for _, x := range st.Workloads {
			ends := "-"
			if !x.Expires.IsZero() {
				ends = time.Until(x.Expires).Truncate(time.Second).String()
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", x.Name, strings.TrimSpace(x.State+" "+x.Why), x.Address, x.SPIFFEID, ends)
		}
		if c := st.Counts; c != nil {
			waiting := uint64(0)
			for _, n := range c.Lag {
				waiting += n
			}
			fmt.Fprintf(
				t,
				"\n%d events scored, %d waiting, %d dead letters; it is %s in the lab\n",
				c.Events,
				waiting,
				c.DeadLetters,
				c.Clock.Format("Mon 2 Jan 2006 15:04 MST"),
			)
			for _, collector := range slices.Sorted(maps.Keys(c.GivenUp)) {
				for _, reason := range slices.Sorted(maps.Keys(c.GivenUp[collector])) {
					fmt.Fprintf(
						t,
						"%s gave up %d events: %s\n",
						collector,
						c.GivenUp[collector][reason],
						cmp.Or(givenUp[reason], reason),
					)
				}
			}
		}
		return t.Flush()
	}
	return fmt.Errorf("%w: -o %q: want text, json or env", errUsage, format)
}

func logsCommand(s *settings) *cobra.Command {
	follow := ""
	c := &cobra.Command{
		Use:     "logs WORKLOAD",
		Short:   "Print a workload's log",
		Args:    cobra.ExactArgs(1),
		Example: "  lab logs risk-scorer\n  lab logs llm-gateway -f\n  lab logs supervisor",
		RunE: func(c *cobra.Command, args []string) error {
			l, err := find(c.Context(), s)
			if err != nil {
				return err
			}
			f, err := os.Open(l.LogFile(args[0]))
			if err != nil {
				st, statusErr := l.Status(c.Context())
				if statusErr != nil {
					return err
				}
				names := []string{"supervisor"}
				for _, w := range st.Workloads {
					names = append(names, w.Name)
				}
				hint := nearest.Hint(args[0], names)
				return fmt.Errorf("%w: no log of %q%s; there are %s", errUsage, args[0], hint, strings.Join(names, ", "))
			}
			return tailFile(c.Context(), f, c.OutOrStdout(), follow == "follow")
		},
	}
	c.Flags().StringVarP(&follow, "follow", "f", "", "go on as it grows")
	c.Flags().Lookup("follow").NoOptDefVal = "follow"
	return c
}

// tailFile copies f, which it closes, and goes on as it grows if it is followed; when another file has taken its place,
// with that one.
func tailFile(ctx context.Context, f *os.File, w io.Writer, follow bool) error {
	defer func() { f.Close() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(w, f); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errSaid, ctx.Err())
		case <-tick.C:
		}
		next, err := replaced(f)
		if err != nil || next == nil {
			continue
		}
		if _, err := io.Copy(w, f); err != nil { // what was written to it before it was replaced
			next.Close()
			return err
		}
		f.Close()
		f = next
	}
}

// replaced opens the file that has f's name now, if that is not f.
func replaced(f *os.File) (*os.File, error) {
	was, err := f.Stat()
	if err != nil {
		return nil, err
	}
	is, err := os.Stat(f.Name())
	if err != nil || os.SameFile(was, is) {
		return nil, err
	}
	return os.Open(f.Name())
}
