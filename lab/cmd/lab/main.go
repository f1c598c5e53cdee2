// Command lab brings up a zero-trust security-training lab, shows and tests it, and takes it down.
//
// It writes data to stdout and messages to stderr. Exit codes: 0 success, 1 an assertion failed, 2 usage, 3
// precondition, 4 time-out, 5 partly up, 6 conflict, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Folders that workloads of other uids must enter keep the mode with which they are made, whatever the caller's
	// umask. Private folders are made with a private mode.
	syscall.Umask(0o022)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is main without the process. It returns the exit code.
func run(ctx context.Context, args []string) int { return runTo(ctx, args, os.Stdout, os.Stderr) }

// runTo is run with the streams. It writes errors to errs.
func runTo(ctx context.Context, args []string, stdout, errs io.Writer) int {
	out := &output{ctx: ctx, to: stdout}
	root := command()
	root.SetArgs(args)
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.err
	}
	if err == nil {
		return 0
	}
	code := exitCode(err)
	if ctx.Err() != nil {
		code = lab.ExitInterrupted
	}
	why := explain(err).Error()
	if code == lab.ExitInterrupted && !strings.Contains(why, "interrupted") {
		_, todo, _ := strings.Cut(why, "\n")
		why = strings.TrimSpace("interrupted\n" + todo)
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(errs, "lab:", why)
	}
	return code
}

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
		Use:               "lab",
		Short:             "A whole company on one machine, with SPIFFE identity and mutual TLS on every connection",
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: flagGroups,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(noFlag)
	root.PersistentFlags().StringVar(&s.name, "name", "lab", "which of several labs")
	root.PersistentFlags().BoolVarP(&s.quiet, "quiet", "q", false, "say nothing on stderr but errors")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		doctorCommand(s),
		withBundle(s, upCommand(s)),
		statusCommand(s),
		playCommand(s),
		scenarioCommand(s),
		seedCommand(s),
		peopleCommand(s),
		linkCommand(s),
		certificateCommand(s),
		openCommand(s),
		logsCommand(s),
		bundleCommand(s),
		matrixCommand(s),
		auditCommand(s),
		evalCommand(s),
		benchCommand(s),
		resetCommand(s),
		restartCommand(s),
		devCommand(s),
		debugCommand(s),
		downCommand(s),
		versionCommand(),
		completionCommand(),
		manCommand(),
		superviseCommand(),
		packageChartCommand(),
	)
	strict(root)
	setCompletions(root)
	return root
}

// helpCommand shows the help of a verb, and reports a verb that does not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [VERB]",
		Short: "Explain a verb, with an example",
		RunE: func(c *cobra.Command, args []string) error {
			about := c.Root()
			for _, name := range args {
				i := slices.IndexFunc(about.Commands(), func(sub *cobra.Command) bool { return sub.Name() == name })
				if i < 0 {
					return noVerb(about, name)
				}
				about = about.Commands()[i]
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
		ValidArgsFunction: func(
			c *cobra.Command, args []string, _ string,
		) ([]cobra.Completion, cobra.ShellCompDirective) {
			about, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []cobra.Completion
			for _, sub := range about.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}
