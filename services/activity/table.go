package activity

import "slices"

// Table lists every source, in display order. To add a source, write its Row in a new file and list it here.
var Table = []Row{git, jira, iam, siem, training}

// Row describes a source, except how its records are read (package source) and the weights of its verbs (the profiles
// of package risk).
type Row struct {
	Source Source
	Group  Group
	Vendor bool // its records come from outside: if they cease, something is broken
	// Accounts are the systems whose accounts its records name: "github" of github:mira.
	Accounts []string
	Verbs    []VerbRow
}

// VerbRow is one verb of a source, with its text for people: the act in the past tense, without a subject.
type VerbRow struct {
	Verb  Verb
	Once  string // "committed a secret"
	Often string // "committed %d secrets"
}

// Group is a group of sources with one weight in a risk score.
type Group int

// The groups, in display order. Tickets belong to the group of training: an overdue ticket is work that was not done.
const (
	Code Group = iota
	Access
	Alerts
	Learning
	Groups // the number of groups; also the group of an unknown source
)

// Sources are the sources in display order.
func Sources() []Source {
	var all []Source
	for _, row := range Table {
		all = append(all, row.Source)
	}
	return all
}

// Vendors are the sources whose records come from outside, in display order.
func Vendors() []Source {
	var all []Source
	for _, row := range Table {
		if row.Vendor {
			all = append(all, row.Source)
		}
	}
	return all
}

// AccountSystems are the systems whose accounts records name, each once.
func AccountSystems() []string {
	var all []string
	for _, row := range Table {
		for _, system := range row.Accounts {
			if !slices.Contains(all, system) {
				all = append(all, system)
			}
		}
	}
	return all
}

// Listed tells whether the source stands in the table.
func (s Source) Listed() bool { return s.Group() != Groups }

// Group is the group of a source; Groups for one that is not listed.
func (s Source) Group() Group {
	for i := range Table {
		if Table[i].Source == s {
			return Table[i].Group
		}
	}
	return Groups
}

// Words returns the verb's row; ok is false if it has none.
func (v Verb) Words() (row VerbRow, ok bool) {
	source := v.Source()
	for i := range Table {
		if Table[i].Source != source {
			continue
		}
		for _, row := range Table[i].Verbs {
			if row.Verb == v {
				return row, true
			}
		}
	}
	return VerbRow{}, false
}
