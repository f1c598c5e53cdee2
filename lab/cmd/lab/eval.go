package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"example.org/security-training/lab/eval"
	"example.org/security-training/synth/people"
)

func evalCommand(_ *settings) *cobra.Command {
	seeds, mix, format := "", "", ""
	plan := eval.Plan{}
	c := &cobra.Command{
		Use: "eval", Short: "Measure how well each profile tells who needs help, against the answer key", Args: cobra.NoArgs,
		Example: "  lab eval\n  lab eval --mix sparse -o json\n  lab eval --seeds 7,11,13 --people 200 --dump out",
		Long: `Generates companies, scores everyone by every profile and baseline, and compares the scores with what
people were made to do. It needs no running lab. --seeds takes a number of built-in seeds, on which nothing was tuned, a
range (1000-1019) or a list (7,11,13). --dump writes people, events, answers, gaps and scores for each seed, so that
anyone can recompute them.`,
		RunE: func(c *cobra.Command, _ []string) error {
			write, ok := map[string]func(io.Writer, eval.Report) error{"text": eval.WriteText, "json": eval.WriteJSON}[format]
			if !ok {
				return fmt.Errorf("%w: -o %q: want text or json", errUsage, format)
			}
			var err error
			if plan.Seeds, err = eval.SeedsFrom(seeds); err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if plan.Mix, err = people.MixFrom(mix); err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if plan.People < 1 || plan.People > 50_000 || plan.Days < 1 || plan.Days > 365 {
				return fmt.Errorf("%w: want 1 to 50000 people and 1 to 365 days", errUsage)
			}
			report, err := eval.Measure(c.Context(), plan)
			if err != nil {
				return err
			}
			return write(c.OutOrStdout(), report)
		},
	}
	f := c.Flags()
	f.StringVar(&seeds, "seeds", "20", "how many built-in seeds, or which: 1000-1019, or 7,11,13")
	f.StringVar(&mix, "mix", "published", "published or sparse")
	f.IntVar(&plan.People, "people", 1000, "how many work in each company")
	f.IntVar(&plan.Days, "days", 30, "days of history")
	f.StringVar(&plan.Dump, "dump", "", "a folder to write every company and its scores to")
	f.StringVarP(&format, "output", "o", "text", "text or json")
	return c
}
