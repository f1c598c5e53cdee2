// Command lab brings a zero-trust security-training lab up, shows it, tries it and takes it down again.
//
// stdout is data, stderr is for people. Exit codes: 0 well, 1 an assertion failed, 2 usage, 3 precondition, 4 time-out,
// 5 partly up, 6 conflict, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Folders that a workload of another uid must enter have the mode that they are made with, under any umask of the
	// caller. What is private is made so.
	syscall.Umask(0o022)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string) int {
	root := command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e *lab.Error
	code := lab.ExitAssertion
	switch {
	case ctx.Err() != nil:
		code = lab.ExitInterrupted
	case errors.As(err, &e):
		code = e.Code
	case errors.Is(err, context.DeadlineExceeded):
		code = lab.ExitTimeout
	case errors.Is(err, errUsage) || strings.HasPrefix(err.Error(), "unknown "):
		code = lab.ExitUsage
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	return code
}

var (
	errUsage = errors.New("usage")
	// errSaid is a failure that has already been shown to the reader.
	errSaid = errors.New("already said")
)

// settings are the flags that every verb has.
type settings struct {
	name  string
	quiet bool
}

func (s *settings) progress() progress.Reporter {
	if s.quiet {
		return progress.Quiet{}
	}
	return progress.For(os.Stderr, env.Process)
}

func command() *cobra.Command {
	s := &settings{}
	root := &cobra.Command{
		Use:           "lab",
		Short:         "A whole company on one machine, with SPIFFE identity and mutual TLS on every connection",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.PersistentFlags().StringVar(&s.name, "name", "lab", "which of several labs")
	root.PersistentFlags().BoolVarP(&s.quiet, "quiet", "q", false, "say nothing on stderr but errors")
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(
		doctorCommand(
			s,
		),
		explained(s, upCommand(s)),
		statusCommand(s),
		playCommand(s),
		scenarioCommand(s),
		seedCommand(s),
		peopleCommand(s),
		openCommand(s),
		logsCommand(s),
		bundleCommand(s),
		matrixCommand(
			s,
		),
		auditCommand(s),
		evalCommand(s),
		benchCommand(s),
		resetCommand(s),
		restartCommand(s),
		devCommand(s),
		debugCommand(s),
		downCommand(s),
		versionCommand(),
		superviseCommand(),
		packageChartCommand(),
	)
	for _, c := range root.Commands() {
		usage(c)
	}
	return root
}

// usage makes a wrong number of arguments a usage error, whatever the verb.
func usage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w: %w\n  try:  lab help %s", errUsage, err, c.Name())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usage(sub)
	}
}
