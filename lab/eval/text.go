package eval

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
)

// WriteJSON writes the report, indented.
func WriteJSON(w io.Writer, r Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report for people: every profile as a whole, and the default one by storyline and by role.
func WriteText(w io.Writer, r Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(
		t,
		"%d seeds of %d people, mix %s, %d days; HIGH or above; 95 %% intervals over seeds\n\n",
		len(r.Seeds),
		r.People,
		r.Mix,
		r.Days,
	)
	var names []string
	for n := range r.Profiles {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Profiles[b].Overall.F1.Value, r.Profiles[a].Overall.F1.Value), cmp.Compare(a, b))
	})
	fmt.Fprint(t, "profile")
	for _, m := range measures {
		fmt.Fprintf(t, "\t%s", m.name)
	}
	fmt.Fprintln(t)
	for _, n := range names {
		p := r.Profiles[n]
		mark := ""
		switch {
		case n == r.Default:
			mark = " (default)"
		case p.Baseline:
			mark = " (baseline)"
		}
		fmt.Fprint(t, n+mark)
		for _, m := range measures {
			fmt.Fprint(t, "\t"+with(*m.rate(&p.Overall.Rates), *m.interval(&p.Overall.CI95)))
		}
		fmt.Fprintln(t)
	}
	p := r.Profiles[r.Default]
	fmt.Fprintf(
		t,
		"\n%s by storyline, against its near miss\tlevel\tcarriers\tnear misses\tprecision\trecall\tF1\tdays to detection\n",
		r.Default,
	)
	for _, s := range people.Stories {
		q := p.Storylines[string(s)]
		fmt.Fprintf(
			t,
			"%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n",
			s,
			q.Level,
			q.Positive,
			q.NearMisses,
			q.Precision,
			with(q.Recall, q.CI95.Recall),
			q.F1,
			q.DaysToDetection,
		)
	}
	fmt.Fprintf(t, "\n%s by role\tpeople\tpositive\tprecision\trecall\tF1\tfalse positive rate\n", r.Default)
	for _, role := range risk.Roles {
		q := p.Roles[string(role)]
		fmt.Fprintf(
			t,
			"%s\t%d\t%d\t%s\t%s\t%s\t%s\n",
			role,
			q.People,
			q.Positive,
			q.Precision,
			q.Recall,
			q.F1,
			with(q.FalsePositive, q.CI95.FalsePositive),
		)
	}
	return t.Flush()
}

func with(r Rate, i Interval) string {
	if !r.Known || !i[0].Known {
		return r.String()
	}
	return fmt.Sprintf("%s (%s–%s)", r, i[0], i[1])
}
