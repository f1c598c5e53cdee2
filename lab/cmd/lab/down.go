package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
)

func downCommand(s *settings) *cobra.Command {
	all := false
	c := &cobra.Command{
		Use:     "down",
		Short:   "End everything and remove it",
		Args:    cobra.NoArgs,
		Example: "  lab down\n  lab down --name second\n  lab down --all",
		Long: `Ends every process of the lab and removes its folder. Says what it removed, and what stays: the cache, from
which the next lab starts in seconds, and the last bundles. With --all the cache goes too. A lab that is not up is no
error.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := down(c.Context(), s); err != nil {
				return err
			}
			if all {
				return removeCache(c.Context(), s)
			}
			if kept, err := local.Cached(env.Process); err == nil { // an error means that there is no cache
				for _, k := range kept {
					s.progress().Say("stays:   %s; `lab down --all%s` removes it", k, nameFlag(s))
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "remove the cache too: database template, downloaded programs, bundles")
	return c
}

// down ends the lab of s and removes it.
func down(ctx context.Context, s *settings) error {
	l, err := findAny(ctx, s)
	if errors.Is(err, lab.ErrNone) {
		s.progress().Say("%s is not up: nothing to remove", s.name)
		return nil
	}
	if l == nil {
		return err
	}
	var removed []string
	if err := progress.Step(s.progress(), "down", func() (err error) {
		removed, err = l.Down(ctx)
		return err
	}); err != nil {
		return err
	}
	slices.Sort(removed)
	s.progress().Say("removed: %s", strings.Join(removed, ", "))
	return nil
}

// removeCache removes what labs leave to later labs.
func removeCache(ctx context.Context, s *settings) error {
	removed, kept, err := local.RemoveCache(ctx, env.Process, s.progress())
	for _, k := range removed {
		s.progress().Say("removed: %s", k)
	}
	for _, k := range kept {
		s.progress().Say("stays:   %s; another lab runs it", k)
	}
	if err == nil && len(removed)+len(kept) == 0 {
		s.progress().Say("there is no cache: nothing to remove")
	}
	return err
}
