package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
	"example.org/security-training/synth/nearest"
)

// access holds what link, certificate and open ask for: for whom, and where files go.
type access struct {
	class   string // a file with one person's id a line
	role    string // instructor or admin; used if there is no person
	dir     string // for certificates
	persons []string

	explicit bool // a person, a class or a role must be given
}

// named is a person's id. At is where it was read in a class list, or "" if it is an argument.
type named struct{ id, at string }

// roles are the roles that belong to no person.
var roles = []string{"instructor", "admin"}

func (a *access) classFlag(c *cobra.Command) {
	c.Flags().StringVar(
		&a.class,
		"class",
		"",
		"a file with one person's id a line; all are checked before the first is served",
	)
}

func (a *access) roleFlag(c *cobra.Command) {
	c.Flags().StringVar(
		&a.role,
		"role",
		"instructor",
		"without a person: instructor, or admin, who may also give and take identities",
	)
}

func (a *access) toFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.dir, "to", ".", "the folder for certificates")
}

// read checks what can be checked without a lab. It returns the persons in the order in which they were named, or none
// if access is for the role.
func (a *access) read(c *cobra.Command) ([]named, error) {
	if !slices.Contains(roles, a.role) {
		return nil, fmt.Errorf(
			"%w: --role %q: want instructor or admin%s",
			errUsage,
			a.role,
			nearest.Hint(a.role, roles),
		)
	}
	given := 0
	for _, is := range []bool{len(a.persons) > 0, a.class != "", c.Flags().Changed("role")} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, fmt.Errorf("%w: want one of PERSON, --class and --role\n  try:  %s", errUsage, helpOf(c))
	}
	if a.class == "" {
		var list []named
		for _, p := range a.persons {
			list = append(list, named{id: p})
		}
		return list, nil
	}
	text, err := os.ReadFile(a.class)
	if err != nil {
		return nil, fmt.Errorf("%w: read the class list: %w", errUsage, err)
	}
	return classOf(a.class, text)
}

// classOf parses a class list: one id a line. It skips empty lines and lines that begin with #. The error names every
// line whose id is not valid or is a repetition.
func classOf(file string, text []byte) ([]named, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors begin a file with it
	var list []named
	var faults []error
	first := map[string]int{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		id := strings.TrimSpace(string(line))
		switch {
		case id == "" || strings.HasPrefix(id, "#"):
			continue
		case strings.ContainsAny(id, " \t,;") || len(id) > 200:
			faults = append(faults, fmt.Errorf("line %d: %.40q: want one id", n, id))
		case first[id] > 0:
			faults = append(faults, fmt.Errorf("line %d: %s stands in line %d already", n, id, first[id]))
		default:
			list = append(list, named{id, fmt.Sprintf("line %d: ", n)})
			first[id] = n
		}
	}
	if len(list)+len(faults) == 0 {
		faults = append(faults, errors.New("it names no person"))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf(
			"%w: read the class list %s:\n  %w\n  try:  %s -o ids > FILE",
			errUsage,
			file,
			joined(faults),
			operator.FindPeople,
		)
	}
	return list, nil
}

// joined is errors.Join with indented lines.
func joined(faults []error) error {
	var lines []string
	for _, f := range faults {
		lines = append(lines, f.Error())
	}
	return errors.New(strings.Join(lines, "\n  "))
}

// checkKnown checks that everyone in list is in the lab's roster. The error names each one who is not, with a
// suggestion.
func checkKnown(ctx context.Context, o *operator.Operator, what string, list []named) error {
	if len(list) == 0 {
		return nil
	}
	roster, err := operator.People(ctx, o)
	if err != nil {
		return err
	}
	var ids []string
	for _, p := range roster {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	var faults []error
	for _, one := range list {
		if _, is := slices.BinarySearch(ids, one.id); !is {
			faults = append(faults, fmt.Errorf("%sthe roster has no %q%s", one.at, one.id, nearest.Hint(one.id, ids)))
		}
	}
	if len(faults) > 0 {
		return &lab.Error{Code: lab.ExitUsage, What: what, Why: joined(faults), Try: operator.FindPeople}
	}
	return nil
}

// link prints a sign-in link for each of list, or one for the role. For a class list, each line begins with the id.
func (a *access) link(ctx context.Context, in entered, list []named, out io.Writer) error {
	if err := checkKnown(ctx, in.operator, "make a sign-in link", list); err != nil {
		return err
	}
	home := in.status.Dashboard
	if in.status.Spec.Listen != "" && a.class != "" {
		home = in.status.Room
	}
	if len(list) == 0 {
		link, err := in.operator.LinkAs(ctx, home, a.role)
		if err == nil {
			_, err = fmt.Fprintln(out, link)
		}
		return err
	}
	for _, one := range list {
		link, err := in.operator.Link(ctx, home, one.id)
		if err != nil {
			return err
		}
		if a.class != "" {
			link = one.id + "\t" + link
		}
		if _, err := fmt.Fprintln(out, link); err != nil {
			return err
		}
	}
	return nil
}

// issue writes a certificate for each of list, or one for the role.
func (a *access) issue(ctx context.Context, in entered, list []named, out io.Writer) error {
	if err := checkKnown(ctx, in.operator, "make a certificate", list); err != nil {
		return err
	}
	if len(list) == 0 {
		return certify(ctx, in.lab, a.role, a.role, a.dir, out)
	}
	for _, one := range list {
		if err := certify(ctx, in.lab, one.id, "person", a.dir, out); err != nil {
			return err
		}
	}
	return nil
}

// revoke refuses the certificates of each of list, or those of the role. If someone is in no roster, it returns an
// error after it has revoked the others: a typing error in one name must not leave another's certificate valid.
func (a *access) revoke(ctx context.Context, in entered, list []named, out io.Writer) error {
	if len(list) == 0 {
		return revoke(ctx, in.lab, in.operator, a.role, a.role, out)
	}
	for _, one := range list {
		if err := revoke(ctx, in.lab, in.operator, one.id, "person", out); err != nil {
			return err
		}
	}
	return checkKnown(ctx, in.operator, "revoked", list)
}

// serve reads for whom access is asked, enters the lab and calls do with the persons; none means the role.
func (a *access) serve(
	c *cobra.Command,
	s *settings,
	args []string,
	do func(ctx context.Context, in entered, list []named, out io.Writer) error,
) error {
	a.persons = args
	list, err := a.read(c)
	if err != nil {
		return err
	}
	if a.explicit && len(list) == 0 && !c.Flags().Changed("role") {
		return fmt.Errorf("%w: want PERSON, --class or --role\n  try:  %s", errUsage, helpOf(c))
	}
	return inside(
		c.Context(),
		s,
		func(ctx context.Context, l *control.Lab, o *operator.Operator, st lab.Status) error {
			return do(ctx, entered{lab: l, operator: o, status: st}, list, c.OutOrStdout())
		},
	)
}

// entered is a running lab, entered by its operator.
type entered struct {
	lab      *control.Lab
	operator *operator.Operator
	status   lab.Status
}

func linkCommand(s *settings) *cobra.Command {
	a := &access{}
	c := &cobra.Command{
		Use:   "link [PERSON]",
		Short: "Print one-time sign-in links",
		Args:  cobra.MaximumNArgs(1),
		Example: "  lab link\n  lab link --role admin\n  lab link elisabeth.reese\n" +
			"  lab people --level CRITICAL -o ids > class.txt\n  lab link --class class.txt",
		Long: `Prints a link that signs in once, within 15 minutes: for one person, for each line of a class list, or for the
instructor. A class list has one person's id a line; empty lines and those that begin with # are left out. Every line is
checked before the first link is made: if one is wrong, none is made, and the error names each line that is.`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.serve(c, s, args, a.link)
		},
	}
	a.classFlag(c)
	a.roleFlag(c)
	return c
}

func certificateCommand(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use: "certificate", Short: "Write client certificates for browsers, or revoke them", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(issueCommand(s), revokeCommand(s))
	return c
}

// certificateVerb completes a verb below certificate, for persons, a class or a role.
func certificateVerb(s *settings, a *access, c *cobra.Command,
	do func(context.Context, entered, []named, io.Writer) error,
) *cobra.Command {
	a.explicit = true
	c.RunE = func(c *cobra.Command, args []string) error { return a.serve(c, s, args, do) }
	a.classFlag(c)
	a.roleFlag(c)
	return c
}

func issueCommand(s *settings) *cobra.Command {
	a := &access{}
	c := certificateVerb(s, a, &cobra.Command{
		Use:     "issue PERSON…",
		Short:   "Write client certificates (PKCS#12), to be imported into a browser",
		Example: "  lab certificate issue elisabeth.reese\n  lab certificate issue --role admin --to .",
		Long: `Writes a PKCS#12 file for each person, PERSON.p12, and prints its owner, file and password. Everyone is checked
before the first is made.`,
	}, a.issue)
	a.toFlag(c)
	return c
}

func revokeCommand(s *settings) *cobra.Command {
	a := &access{}
	return certificateVerb(s, a, &cobra.Command{
		Use:     "revoke PERSON…",
		Short:   "Refuse every certificate that was made so far",
		Example: "  lab certificate revoke elisabeth.reese",
		Long: `Refuses, from the next request on, every certificate that its owner was given so far; a new one works. Someone
who is not in the roster is revoked as well, and named as an error: it may be a misspelt name.`,
	}, a.revoke)
}

// openCommand is the older verb that link and certificate have replaced. It still works.
func openCommand(s *settings) *cobra.Command {
	a := &access{}
	as := ""
	certificate, revoked := false, false
	c := &cobra.Command{
		Use:   "open [PERSON]",
		Short: `The older name of "link" and "certificate"`,
		Args:  cobra.MaximumNArgs(1),
		Example: "  lab open\n  lab open --role admin\n  lab open --as elisabeth.reese\n" +
			"  lab open --class class.txt\n  lab open --certificate elisabeth.reese\n  lab open --certificate " +
			"elisabeth.reese --revoke",
		Long: `Does what "lab link" does; with --certificate what "lab certificate issue" does, for the instructor where no
person is named; and with --revoke as well what "lab certificate revoke" does.`,
		RunE: func(c *cobra.Command, args []string) error {
			if revoked && !certificate {
				return fmt.Errorf("%w: --revoke is for --certificate", errUsage)
			}
			if as != "" {
				args = append(args, as)
			}
			if len(args) > 1 {
				return fmt.Errorf("%w: want one of PERSON, --as and --class", errUsage)
			}
			switch {
			case revoked:
				return a.serve(c, s, args, a.revoke)
			case certificate:
				return a.serve(c, s, args, a.issue)
			default:
				return a.serve(c, s, args, a.link)
			}
		},
	}
	a.classFlag(c)
	a.roleFlag(c)
	a.toFlag(c)
	c.Flags().StringVar(&as, "as", "", "a person's id, as \"lab people\" lists it; without one it is the instructor")
	c.Flags().BoolVar(
		&certificate,
		"certificate",
		false,
		"write a client certificate (PKCS#12) instead of printing a link",
	)
	c.Flags().BoolVar(&revoked, "revoke", false, "with --certificate: refuse all that were made so far, and make none")
	return c
}
