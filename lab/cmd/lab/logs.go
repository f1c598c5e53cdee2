package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.org/security-training/synth/nearest"
)

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

// tailFile copies f to w and closes f. If follow is set, it goes on as f grows; if another file replaces f, it goes on
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
		if _, err := io.Copy(w, f); err != nil { // written before the file was replaced
			next.Close()
			return err
		}
		f.Close()
		f = next
	}
}

// replaced opens the file that now has f's name. It returns nil if that is still f.
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
