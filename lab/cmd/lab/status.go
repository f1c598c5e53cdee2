package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/activity"
	"example.org/security-training/synth/nearest"
)

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
			wrong := addCounts(c.Context(), l, &st)
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

// addCounts adds to st how many events were processed, if every workload is ready.
func addCounts(ctx context.Context, l *control.Lab, st *lab.Status) error {
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

// givenUp explains why a collector gave an event up, by the reason in the scorer's receipt.
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
