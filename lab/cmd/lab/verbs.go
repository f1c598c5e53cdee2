package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/auditor"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/kind"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/matrix"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/play"
	"example.org/security-training/lab/seed"
	"example.org/security-training/services/env"
	"example.org/security-training/synth/nearest"
)

func doctorCommand(_ *settings) *cobra.Command {
	format, runtime := "", ""
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Check every precondition, and say how to mend what fails",
		Args:    cobra.NoArgs,
		Example: "  lab doctor\n  lab doctor --runtime kind\n  lab doctor -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			checks, err := checksFor(c.Context(), runtime)
			if err != nil {
				return err
			}
			failed := 0
			for _, x := range checks {
				if !x.OK && x.Needed {
					failed++
				}
			}
			if err := writeChecks(c.OutOrStdout(), checks, format); err != nil {
				return err
			}
			if failed > 0 {
				return &lab.Error{
					Code: lab.ExitPrecondition,
					What: "doctor",
					Why:  fmt.Errorf("%d of %d checks failed; each says what mends it", failed, len(checks)),
				}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	c.Flags().StringVar(&runtime, "runtime", runtimeAuto, "which runtime the lab is for: auto, local, kind or cluster")
	return c
}

// checksFor returns doctor's checks for a runtime. A runtime that is only an alternative is not needed.
func checksFor(ctx context.Context, runtime string) ([]local.Check, error) {
	all, err := runtimes("")
	if err != nil {
		return nil, err
	}
	byRuntime := map[string]func() []local.Check{
		local.RuntimeName: func() []local.Check { return local.Doctor(ctx, env.Process) },
		kind.RuntimeName: func() []local.Check {
			return []local.Check{kindCheck(ctx, all[kind.RuntimeName].(*kind.Runtime))}
		},
		cluster.RuntimeName: func() []local.Check {
			return []local.Check{clusterCheck(ctx, all[cluster.RuntimeName].(*cluster.Runtime))}
		},
	}
	if runtime == runtimeAuto {
		checks := byRuntime[local.RuntimeName]()
		for _, check := range byRuntime[kind.RuntimeName]() {
			check.Needed = false
			checks = append(checks, check)
		}
		return checks, nil
	}
	checks, ok := byRuntime[runtime]
	if !ok {
		return nil, fmt.Errorf("%w: --runtime %q: want auto, local, kind or cluster", errUsage, runtime)
	}
	return checks(), nil
}

// kindCheck checks whether a lab in kind could be brought up here.
func kindCheck(ctx context.Context, r *kind.Runtime) local.Check {
	check := local.Check{
		Category: "kind",
		What:     "a Docker engine and the images",
		Needed:   true,
		Mend:     "sudo systemctl start docker, docker pull …, or lab up --runtime local",
	}
	toDownload, err := r.Available(ctx)
	switch {
	case err != nil:
		check.Found = oneLine(err)
	case len(toDownload) > 0:
		check.OK, check.Found = true, "to be downloaded: "+kind.Sizes(toDownload)
	default:
		check.OK, check.Found = true, "all there"
	}
	return check
}

// clusterCheck checks whether a lab could be installed into kubectl's current context.
func clusterCheck(ctx context.Context, r *cluster.Runtime) local.Check {
	check := local.Check{
		Category: "cluster",
		What:     "kubectl's current context and an image",
		Needed:   true,
		Mend:     "kubectl config use-context …, LAB_APP_IMAGE=REGISTRY/security-training-app:TAG",
	}
	found, err := r.Available(ctx)
	check.OK, check.Found = err == nil, found
	var e *lab.Error
	if errors.As(err, &e) {
		check.Found, check.Mend = oneLine(e.Why), e.Try
	} else if err != nil {
		check.Found = oneLine(err)
	}
	return check
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func writeChecks(w io.Writer, checks []local.Check, format string) error {
	switch format {
	case "json":
		return json.NewEncoder(w).Encode(checks)
	case "text":
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, x := range checks {
			mark := "✓"
			switch {
			case !x.OK && x.Needed:
				mark = "✗"
			case !x.OK:
				mark = "–"
			}
			line := x.Found
			if x.Mend != "" && !x.OK {
				line += "   mend: " + x.Mend
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", mark, x.Category, x.What, line)
		}
		return t.Flush()
	}
	return fmt.Errorf("%w: -o %q: want text or json", errUsage, format)
}

func seedCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:     "seed",
		Short:   "Deliver the history again; events that have arrived already are not scored twice",
		Args:    cobra.NoArgs,
		Example: "  lab seed",
		RunE: func(c *cobra.Command, _ []string) error {
			return inside(c.Context(), s, func(ctx context.Context, l *control.Lab, o *operator.Operator, st lab.Status) error {
				position, err := seed.History(ctx, o, st.Spec, s.progress())
				if err != nil || st.Seeded { // keep the old mark: what came since is not history, and a reset removes it
					return err
				}
				return l.StateDir().Milestones().MarkSeeded(position)
			})
		},
	}
}

// inside finds the lab, enters it as its operator and calls f.
func inside(
	ctx context.Context,
	s *settings,
	f func(context.Context, *control.Lab, *operator.Operator, lab.Status) error,
) error {
	l, err := find(ctx, s)
	if err != nil {
		return err
	}
	return local.OnDisk(ctx, l.StateDir(), func(ctx context.Context) error {
		st, err := l.Status(ctx)
		if err != nil {
			return err
		}
		o, err := operator.Enter(ctx, l)
		if err != nil {
			return err
		}
		return f(ctx, l, o, st)
	})
}

// linkFor makes a sign-in link for person, or for the instructor if person is "".
func linkFor(ctx context.Context, l *control.Lab, person string) (string, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return "", err
	}
	o, err := operator.Enter(ctx, l)
	if err != nil {
		return "", err
	}
	return o.Link(ctx, st.Dashboard, person)
}

func matrixCommand(s *settings) *cobra.Command {
	format := ""
	how := matrix.Options{}
	c := &cobra.Command{
		Use: "matrix", Short: "Try every caller against every route, live", Args: cobra.NoArgs,
		Example: "  lab matrix\n  lab matrix --caller lms --callee llm-gateway\n  lab matrix --against running\n" +
			"  lab matrix -o json\n  lab matrix -o html > matrix.html",
		Long: `Tries every caller, strangers and forgers included, on every route of the running lab, over a new and over a
kept connection, and prints the expected and the measured outcome. A probe changes nothing. Exits with 1 if they differ.

The expected outcome is that of the policy with which the lab was made. If the policy was edited since, that is a
difference, and a section of its own shows it. With --against running, the edited policy is the expected one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			write, ok := map[string]func(io.Writer, []matrix.Cell) error{
				"text": matrix.WriteText, "json": matrix.WriteJSON, "html": matrix.WriteHTML,
			}[format]
			if !ok {
				return fmt.Errorf("%w: -o %q: want text, json or html", errUsage, format)
			}
			against := []string{matrix.AgainstShipped, matrix.AgainstRunning}
			if !slices.Contains(against, how.Against) {
				return fmt.Errorf("%w: --against %q: want %s%s", errUsage, how.Against, strings.Join(against, " or "),
					nearest.Hint(how.Against, against))
			}
			l, err := find(c.Context(), s)
			if err != nil {
				return err
			}
			cells, err := matrix.Try(c.Context(), l, how)
			if err != nil {
				return err
			}
			_, fault := lab.RunningPolicy(l)
			if err := write(c.OutOrStdout(), cells); err != nil {
				return err
			}
			wrong := 0
			for _, cell := range cells {
				if !cell.OK {
					wrong++
				}
			}
			if wrong > 0 {
				return errors.Join(fmt.Errorf("%d of %d cells are not as expected", wrong, len(cells)), fault)
			}
			s.progress().Say("%d cells, each as expected on a new and on a kept connection", len(cells))
			return fault
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text, json or html")
	c.Flags().StringVar(&how.Against, "against", matrix.AgainstShipped, "what is expected: shipped or running")
	c.Flags().StringVar(&how.Caller, "caller", "", "this caller alone: a workload, or a stranger such as forged")
	c.Flags().StringVar(&how.Callee, "callee", "", "this callee alone")
	return c
}

func auditCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Verify, follow or export what was decided and done",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{
			Use:     "verify",
			Short:   "Find any edit, deletion, insertion or reordering",
			Args:    cobra.NoArgs,
			Example: "  lab audit verify",
			Long: `Verifies every chain of decisions, the supervisor's too, against its signed checkpoints, and the business
rows in the database against the ends that their writers reported. Names the first bad entry of each chain and goes on
to the next. Exits with 1 if there is one. The kinds of fault: edited, deleted, inserted, reordered, cut at the end,
resealed, doubled sequence number, two checkpoints for one number, missing checkpoint, bad signature, no checkpoints,
missing chain.`,
			RunE: func(c *cobra.Command, _ []string) error {
				return inside(c.Context(), s, func(ctx context.Context, l *control.Lab, o *operator.Operator, _ lab.Status) error {
					report, err := auditor.Verify(ctx, l, o)
					for _, chain := range report {
						mark := "✓"
						if len(chain.Faults) > 0 {
							mark = "✗"
						}
						fmt.Fprintf(
							c.OutOrStdout(),
							"%s %s\t%d entries, %d checkpoints\n",
							mark,
							chain.Name,
							chain.Entries,
							chain.Checkpoints,
						)
					}
					return err
				})
			},
		},
		&cobra.Command{
			Use:     "tail [WORKLOAD]",
			Short:   "Follow decisions as they are made",
			Args:    cobra.MaximumNArgs(1),
			Example: "  lab audit tail\n  lab audit tail llm-gateway",
			RunE: func(c *cobra.Command, args []string) error {
				l, err := find(c.Context(), s)
				if err != nil {
					return err
				}
				err = auditor.Tail(c.Context(), l, args, c.OutOrStdout())
				if c.Context().Err() != nil {
					return fmt.Errorf("%w: %w", errSaid, err)
				}
				return err
			},
		},
		&cobra.Command{
			Use:     "export",
			Short:   "Write every chain, the checkpoints and the public key as JSON lines",
			Args:    cobra.NoArgs,
			Example: "  lab audit export > audit.jsonl",
			RunE: func(c *cobra.Command, _ []string) error {
				return inside(c.Context(), s, func(ctx context.Context, l *control.Lab, o *operator.Operator, _ lab.Status) error {
					return auditor.Export(ctx, l, o, c.OutOrStdout())
				})
			},
		},
		rescoreCommand(s),
	)
	return c
}

func resetCommand(s *settings) *cobra.Command {
	learners, yes, to := false, false, "."
	c := &cobra.Command{
		Use:     "reset [SCENARIO]",
		Short:   "Remove what exercises created; learners' records only with --learners",
		Args:    cobra.MaximumNArgs(1),
		Example: "  lab reset\n  lab reset leaked-secret\n  lab reset --learners --yes --to .",
		Long: `Removes every exercise, the people who were made for it, and everything that they did, scored and learnt. With
a scenario, one of the lab's or a file, it removes only the records that the scenario's runs created. The company's life
goes on, and learners' records stay: lessons, attempts, certificates, and answers to simulated phishing.

With --learners it also deletes those, and everything else that came after the history. Before that it writes them to
two new files, results-LAB-TIME.csv and .json, that only you can read, and prints their names. It requires --yes. A
certificate of a learner can still be verified afterwards: "given out on …; its record was deleted".

The audit chains and the lab's clock are not changed.`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case learners && len(args) > 0:
				return fmt.Errorf("%w: want SCENARIO or --learners, not both", errUsage)
			case learners && !yes:
				return &lab.Error{
					Code: lab.ExitUsage,
					What: "reset learners' records",
					Why:  errors.New("it deletes every lesson, attempt and certificate: want --yes"),
					Try:  "lab reset --learners --yes" + nameFlag(s),
				}
			case !learners && (yes || c.Flags().Changed("to")):
				return fmt.Errorf("%w: --yes and --to are for --learners", errUsage)
			}
			return inside(c.Context(), s, func(ctx context.Context, l *control.Lab, o *operator.Operator, st lab.Status) error {
				if len(args) == 1 {
					return seed.ResetScenario(ctx, o, args[0], s.progress())
				}
				if !learners {
					n, err := seed.ResetExercises(ctx, o, nil, s.progress())
					if err == nil {
						s.progress().Say("%d exercises removed; learners' records stay", n)
					}
					return err
				}
				position, err := l.SeededAt()
				if err != nil {
					return &lab.Error{
						Code: lab.ExitPartly,
						What: "reset",
						Why:  errors.New("the history has not been delivered"),
						Try:  "lab up" + nameFlag(s),
					}
				}
				files, err := seed.ForgetLearners(ctx, o, st.Spec, position, to, s.progress())
				for _, f := range files {
					fmt.Fprintln(c.OutOrStdout(), f)
				}
				return err
			})
		},
	}
	c.Flags().
		BoolVar(
			&learners, "learners", false,
			"delete learners' records too, once they are in a file, and go back to the state after the history",
		)
	c.Flags().BoolVar(&yes, "yes", false, "with --learners: you mean it")
	c.Flags().StringVar(&to, "to", to, "with --learners: the folder for the files")
	return c
}

func playCommand(s *settings) *cobra.Command {
	how := play.Options{}
	c := &cobra.Command{
		Use:   "play SCENARIO",
		Short: "Play a scenario: brief, timeline, expectations turning to ✓ or ✗, debrief",
		Args:  cobra.ExactArgs(1),
		Example: "  lab play leaked-secret\n  lab play compromised-account --step\n  lab play " +
			"lab/scenarios/leaked-secret.yaml --speed 300",
		Long: "Plays one of " + strings.Join(play.Names(), ", ") + ", or a file. Exits with 1 if an expectation fails.",
		RunE: func(c *cobra.Command, args []string) error {
			return inside(c.Context(), s, func(ctx context.Context, l *control.Lab, o *operator.Operator, st lab.Status) error {
				how.Input, how.Output = c.InOrStdin(), c.OutOrStdout()
				return play.Run(ctx, l, o, st, args[0], how)
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&how.Step, "step", false, "wait for Enter before each step")
	f.Float64Var(&how.Speed, "speed", 0, "play in the lab's time, at this many seconds a second")
	f.BoolVar(&how.Now, "now", false, "play as fast as it goes (the default)")
	c.MarkFlagsMutuallyExclusive("step", "speed", "now")
	return c
}
