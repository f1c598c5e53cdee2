package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/risk"
)

// listed is an entry of `lab people`. Its JSON keys are a contract.
type listed struct {
	ID    string     `json:"id"`
	Name  string     `json:"name"`
	Role  risk.Role  `json:"role"`
	Team  string     `json:"team"`
	Level risk.Level `json:"level"`
}

var levels = []risk.Level{risk.Low, risk.Medium, risk.High, risk.Critical}

func peopleCommand(s *settings) *cobra.Command {
	format, level, role := "", "", ""
	c := &cobra.Command{
		Use: "people", Short: "List who there is: ids, names, roles, teams, levels", Args: cobra.NoArgs,
		Example: "  lab people\n  lab people --level HIGH --role sre\n  lab people -o json\n  lab people --level CRITICAL " +
			"-o ids > class.txt",
		Long: `Lists the people of the lab's company, the highest score first. An id is what "lab link" and others take. With
-o ids it prints ids alone, one a line, as "lab link --class" reads them.`,
		RunE: func(c *cobra.Command, _ []string) error {
			write, ok := map[string]func(io.Writer, []listed) error{
				"text": peopleText, "json": peopleJSON, "ids": peopleIDs,
			}[format]
			if !ok {
				return fmt.Errorf("%w: -o %q: want text, json or ids", errUsage, format)
			}
			if at := risk.Level(strings.ToUpper(level)); level != "" && !slices.Contains(levels, at) {
				return fmt.Errorf("%w: --level %q: want one of %v", errUsage, level, levels)
			}
			if role != "" && !slices.Contains(risk.Roles, risk.Role(role)) {
				return fmt.Errorf("%w: --role %q: want one of %v", errUsage, role, risk.Roles)
			}
			return inside(c.Context(), s, func(ctx context.Context, _ *control.Lab, o *operator.Operator, _ lab.Status) error {
				roster, err := operator.People(ctx, o)
				if err != nil {
					return err
				}
				list := []listed{}
				for _, p := range roster {
					if (level == "" || strings.EqualFold(string(p.Level), level)) && (role == "" || string(p.Role) == role) {
						list = append(list, listed{p.ID, p.Name, p.Role, p.Team, p.Level})
					}
				}
				return write(c.OutOrStdout(), list)
			})
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text, json or ids")
	c.Flags().StringVar(&level, "level", "", "only those of this level: LOW, MEDIUM, HIGH or CRITICAL")
	c.Flags().StringVar(&role, "role", "", "only those of this role: sre, backend_developer …")
	return c
}

func peopleText(w io.Writer, list []listed) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tROLE\tTEAM\tLEVEL")
	for _, p := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.ID, p.Name, p.Role, p.Team, p.Level)
	}
	return t.Flush()
}

func peopleJSON(w io.Writer, list []listed) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(list)
}

func peopleIDs(w io.Writer, list []listed) error {
	for _, p := range list {
		if _, err := fmt.Fprintln(w, p.ID); err != nil {
			return err
		}
	}
	return nil
}
