package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/bench"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/seed"
	"example.org/security-training/services/env"
)

func benchCommand(s *settings) *cobra.Command {
	format, to := "", ""
	plan := bench.Plan{}
	c := &cobra.Command{
		Use:     "bench [NAME…]",
		Short:   "Measure what the parts cost, each against a peer that does the same with less around it",
		Example: "  lab bench\n  lab bench handshake requests\n  lab bench score --rounds 15 -o json",
		Long: "Measures " + strings.Join(bench.Names(), ", ") + `, or those that are named.

The two sides of a comparison take turns in the rounds of one run, and the first round is dropped. The result is the
median of the rounds' ratios, with their spread. Benchmarks that need a lab bring up one of their own and take it down.
Writes bench.json with everything that was measured. Exits with 1 if a side did less than it should.`,
		RunE: func(c *cobra.Command, args []string) error {
			write, ok := map[string]func(io.Writer, bench.Report) error{"text": bench.WriteText, "json": bench.WriteJSON}[format]
			if !ok {
				return fmt.Errorf("%w: -o %q: want text or json", errUsage, format)
			}
			chosen, err := bench.Pick(args)
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if plan.Rounds < 1 || plan.Rounds > 1000 {
				return fmt.Errorf("%w: --rounds %d: want 1 to 1000", errUsage, plan.Rounds)
			}
			plan.Names = args
			p := s.progress()
			if slices.ContainsFunc(chosen, func(b bench.Benchmark) bool { return b.Needs != bench.Nothing }) {
				r, err := benchRuntime(c.Context(), p)
				if err != nil {
					return err
				}
				plan.Lab, plan.Up = benchLab(r), benchUp(r)
			}
			report, err := bench.Measure(c.Context(), plan, p)
			if c.Context().Err() != nil {
				return fmt.Errorf("interrupted, nothing was written: %w", err)
			}
			if len(report.Benchmarks) == 0 {
				return err
			}
			report.Versions.Lab = version()
			return errors.Join(err, keepReport(to, report), write(c.OutOrStdout(), report))
		},
	}
	f := c.Flags()
	f.IntVar(&plan.Rounds, "rounds", bench.LeastRounds, "how many rounds each takes, without the first, which is dropped")
	f.StringVar(&to, "to", "bench.json", "the file for the report")
	f.StringVarP(&format, "output", "o", "text", "text or json")
	return c
}

// keepReport writes the report atomically.
func keepReport(to string, report bench.Report) error {
	var text bytes.Buffer
	if err := bench.WriteJSON(&text, report); err != nil {
		return err
	}
	if err := control.Replace(to, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// benchRuntime returns the local runtime, and makes sure that it has all it needs.
func benchRuntime(ctx context.Context, p progress.Reporter) (*local.Runtime, error) {
	lookup := withoutModel(env.Process)
	for _, check := range local.Doctor(ctx, lookup) {
		if check.Needed && !check.OK {
			return nil, &lab.Error{
				Code: lab.ExitPrecondition,
				What: "make a lab for the benchmarks",
				Why:  fmt.Errorf("%s: %s", check.What, check.Found),
				Try:  check.Mend,
			}
		}
	}
	binaries, err := findBinaries(ctx, p)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find myself: %w", err)
	}
	return &local.Runtime{Lookup: lookup, Binaries: binaries, Self: []string{self, "supervise"}, Version: version()}, nil
}

// benchSpec is the spec of a lab for this run alone.
func benchSpec(purpose string) lab.Spec {
	return lab.Spec{
		Name:     fmt.Sprintf("bench-%s-%d", purpose, os.Getpid()),
		People:   50,
		Seed:     42,
		Days:     30,
		Pace:     10,
		Identity: "embedded",
	}
}

// benchLab returns a function that brings up a lab with a short history, in which nothing happens by itself.
func benchLab(r *local.Runtime) func(context.Context) (*bench.Inside, error) {
	spec := benchSpec("in")
	spec.Days, spec.Pace = 1, 1
	return func(ctx context.Context) (*bench.Inside, error) {
		found, err := r.Up(ctx, spec, progress.Quiet{})
		if err != nil {
			return nil, errors.Join(err, removeLab(context.WithoutCancel(ctx), r, spec.Name))
		}
		return &bench.Inside{
			Lab:  found.(*control.Lab),
			Spec: spec,
			Down: func(ctx context.Context) error { return removeLab(ctx, r, spec.Name) },
		}, nil
	}
}

// removeLab takes a lab down, even if only parts of it exist.
func removeLab(ctx context.Context, r *local.Runtime, name string) error {
	found, err := r.Find(ctx, name)
	if errors.Is(err, lab.ErrNone) {
		return nil
	}
	if found == nil {
		return err
	}
	_, err = found.Down(ctx)
	return err
}

// benchUp does what `lab up` does after it has chosen the programs and the runtime.
func benchUp(r *local.Runtime) *bench.UpLocal {
	spec := benchSpec("up")
	return &bench.UpLocal{
		Up: func(ctx context.Context) (lab.Status, error) {
			found, err := r.Up(ctx, spec, progress.Quiet{})
			if err != nil {
				return lab.Status{}, err
			}
			if err := seedAndProve(ctx, found.(*control.Lab), spec, progress.Quiet{}); err != nil {
				return lab.Status{}, err
			}
			return found.Status(ctx)
		},
		Again: func(ctx context.Context) error {
			found, err := r.Up(ctx, spec, progress.Quiet{})
			if err != nil {
				return err
			}
			op, err := operator.Enter(ctx, found)
			if err != nil {
				return err
			}
			return seed.Live(ctx, op, spec)
		},
		Down:  func(ctx context.Context) error { return removeLab(ctx, r, spec.Name) },
		Floor: r.Floor,
	}
}

// withoutModel hides the settings of the model and of the OpenID Connect provider. A benchmark must not call other
// services.
func withoutModel(lookup env.Lookup) env.Lookup {
	return func(name string) (string, bool) {
		for _, prefix := range []string{"GEMINI_", "OIDC_"} {
			if strings.HasPrefix(name, prefix) {
				return "", false
			}
		}
		if name == "LLM_BACKEND" {
			return "stub", true
		}
		return lookup(name)
	}
}
