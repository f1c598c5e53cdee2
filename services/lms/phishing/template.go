package phishing

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"example.org/security-training/services/exercise"
)

//go:embed lures.yaml
var templateText []byte

// Template is a mail of a drill, or an ordinary one that lies beside it.
type Template struct {
	ID         string   `json:"id"`
	From       string   `json:"from"`
	Address    string   `json:"address"`
	Subject    string   `json:"subject"`
	Paragraphs []string `json:"paragraphs"`
	Link       string   `json:"link"`
	Shows      string   `json:"shows"`
	Form       bool     `json:"form"`
	Cues       []cue    `json:"cues"`
	Premise    premise  `json:"premise"`
	Ordinary   bool     `json:"ordinary"`
}

// cue is something by which a reader can tell, and how often it occurs.
type cue struct {
	Cue   string `json:"cue"`
	Count int    `json:"count"`
}

// premise is how well a mail fits the workplace: five elements, each 0 to 8; the last one counts against it.
type premise struct {
	Mimics      int `json:"mimics"`
	Relevance   int `json:"relevance"`
	Situation   int `json:"situation"`
	Consequence int `json:"consequence"`
	Exposure    int `json:"exposure"`
}

// Rating is the sum of the NIST Phish Scale's first four elements less the fifth.
func (p premise) Rating() int {
	return p.Mimics + p.Relevance + p.Situation + p.Consequence - p.Exposure
}

// CueCount is how many cues a reader could find.
func (t Template) CueCount() int {
	n := 0
	for _, c := range t.Cues {
		n += c.Count
	}
	return n
}

// Difficulty is how hard the mail is to detect, by the NIST Phish Scale User Guide (Technical Note 2276, 2023): few cues are
// up to 8, many from 15; a premise fits well from 18 and badly up to 10.
func (t Template) Difficulty() string { return phishScale(t.CueCount(), t.Premise.Rating()) }

func phishScale(cues, premise int) string {
	row := 1
	switch {
	case cues <= 8:
		row = 0
	case cues >= 15:
		row = 2
	}
	column := 1
	switch {
	case premise >= 18:
		column = 0
	case premise <= 10:
		column = 2
	}
	return [3][3]string{
		{"Very difficult", "Very difficult", "Moderately difficult"},
		{"Very difficult", "Moderately difficult", "Moderately to least difficult"},
		{"Moderately difficult", "Moderately difficult", "Least difficult"},
	}[row][column]
}

// templates are the catalogue in its own order.
type templates []Template

func (t templates) byID(id string) (Template, bool) {
	i := slices.IndexFunc(t, func(x Template) bool { return x.ID == id })
	if i < 0 {
		return Template{}, false
	}
	return t[i], true
}

// readTemplates reads the catalogue and reports all its faults at once.
func readTemplates(text []byte) (templates, error) {
	var list templates
	if err := yaml.UnmarshalStrict(text, &list); err != nil {
		return nil, fmt.Errorf("read lures: %w", err)
	}
	var faults []error
	seen := map[string]bool{}
	for _, x := range list {
		if !exercise.ValidID(x.ID) || seen[x.ID] {
			faults = append(faults, fmt.Errorf("id %q: missing, odd or twice", x.ID))
		}
		seen[x.ID] = true
		if x.From == "" || x.Address == "" || x.Subject == "" || len(x.Paragraphs) == 0 {
			faults = append(faults, fmt.Errorf("lure %q: want from, address, subject and paragraphs", x.ID))
		}
		if !x.Ordinary && (x.Link == "" || x.Shows == "" || x.CueCount() == 0) || x.Ordinary && (x.Link != "" || len(x.Cues) > 0) {
			faults = append(faults, fmt.Errorf("lure %q: a drill has a link, the address that it shows, and cues; an ordinary mail has none", x.ID))
		}
		for _, n := range []int{x.Premise.Mimics, x.Premise.Relevance, x.Premise.Situation, x.Premise.Consequence, x.Premise.Exposure} {
			if n < 0 || n > 8 {
				faults = append(faults, fmt.Errorf("lure %q: premise %d: outside 0 to 8", x.ID, n))
			}
		}
	}
	return list, errors.Join(faults...)
}
