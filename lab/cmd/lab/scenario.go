package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"example.org/security-training/lab/play"
)

func scenarioCommand(_ *settings) *cobra.Command {
	c := &cobra.Command{
		Use: "scenario", Short: "Check the file of a scenario", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:     "lint FILE…",
		Short:   "Say everything that is wrong with a scenario, with the line; needs no lab",
		Args:    cobra.MinimumNArgs(1),
		Example: "  lab scenario lint lab/scenarios/leaked-secret.yaml\n  lab scenario lint stranger-at-the-door",
		Long: `Checks one of the lab's scenarios, or a file: its form, and every name in it. Roles, modules, ATT&CK
techniques, verbs, kinds of secrets, callers, callees, routes and reasons must exist. Prints all faults at once, each
with its line, and exits with 2 if there is one. "lab play" makes the same checks before it plays anything.`,
		RunE: func(c *cobra.Command, args []string) error {
			var faults []error
			for _, name := range args {
				words, err := play.Lint(name)
				if err != nil {
					faults = append(faults, err)
					continue
				}
				if _, err := fmt.Fprintf(c.OutOrStdout(), "✓ %s\t%s\n", name, words); err != nil {
					return err
				}
			}
			return errors.Join(faults...)
		},
	})
	return c
}
