package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
)

func rescoreCommand(s *settings) *cobra.Command {
	at, profile := "", ""
	asOf := int64(0)
	c := &cobra.Command{
		Use: "rescore PERSON", Short: "Derive a past score again from the event log", Args: cobra.ExactArgs(1),
		Example: "  lab audit rescore elisabeth.reese --at 2026-10-01T10:04:00.123456Z --as-of 1000",
		Long: `Computes the score that a person had at a given time from the event log up to a position, without the events
that arrived later, and compares it with the score that was stored then. Time and position are in the assessments of
"lab audit export". Exits with 1 if the scores differ.`,
		RunE: func(c *cobra.Command, args []string) error {
			moment, err := time.Parse(time.RFC3339, at)
			if err != nil || asOf < 0 {
				return fmt.Errorf(
					"%w: --at %q, --as-of %d: want a time as 2026-10-01T10:00:00Z, and a position from 0",
					errUsage,
					at,
					asOf,
				)
			}
			return inside(c.Context(), s, func(ctx context.Context, _ *control.Lab, o *operator.Operator, _ lab.Status) error {
				r, err := operator.Rescore(ctx, o, args[0], moment, asOf, profile)
				if err != nil {
					return err
				}
				comparison := "no score was stored at this position under this profile"
				switch {
				case r.Stored == nil:
				case r.Stored.Version != r.Version:
					comparison = fmt.Sprintf("version %d of the profile stored %.12f", r.Stored.Version, r.Stored.Score.Float())
				default:
					comparison = "✓ exactly as it was stored"
				}
				_, err = fmt.Fprintf(
					c.OutOrStdout(),
					"%.12f\t%s\t%s version %d\t%s\n",
					r.Score.Float(),
					r.Level,
					r.Profile,
					r.Version,
					comparison,
				)
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&at, "at", "", "the time that was scored, RFC 3339")
	f.Int64Var(&asOf, "as-of", -1, "the position of the event log")
	f.StringVar(&profile, "profile", "", "which profile; the lab's own by default")
	return c
}
