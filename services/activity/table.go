package activity

// Table lists every source, in display order. To add one, write its Row in a file of its own and name it here.
var Table = []Row{git, jira, iam, siem, training}

// Row is all that is known of a source, beyond how its records are read (package source) and what its verbs weigh (the
// profiles of package risk).
type Row struct {
	Source Source
	Group  Group
	Vendor bool // its records come from outside: when they cease, something is broken
	Verbs  []VerbRow
}

// VerbRow is one verb of a source, with what people read: the act in the past tense, without a subject.
type VerbRow struct {
	Verb  Verb
	Once  string // "committed a secret"
	Often string // "committed %d secrets"
}

// Group is what a risk score weighs together.
type Group int

// The groups, in display order. Tickets are weighed with training: what is overdue is work that was not done.
const (
	Code Group = iota
	Access
	Alerts
	Learning
	Groups // how many there are; of a source that is not listed
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

// Group is the group of a source; Groups for one that is not listed.
func (s Source) Group() Group {
	for i := range Table {
		if Table[i].Source == s {
			return Table[i].Group
		}
	}
	return Groups
}

// Words are the verb's row; ok is false for a verb without one.
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
