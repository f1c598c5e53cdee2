package phishing

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"example.org/security-training/services/exercise"
)

//go:embed templates.yaml
var templateText []byte

// Template is a phishing message of a campaign, or an ordinary message that is sent together with it.
type Template struct {
	ID         string   `json:"id"`
	From       string   `json:"from"`
	Address    string   `json:"address"`
	Subject    string   `json:"subject"`
	Paragraphs []string `json:"paragraphs"`
	Link       string   `json:"link"`  // text of the link
	Shows      string   `json:"shows"` // address that the link shows
	Form       bool     `json:"form"`  // the page behind the link has a form
	Cues       []cue    `json:"cues"`
	Premise    premise  `json:"premise"`
	Ordinary   bool     `json:"ordinary"`
}

// cue is a sign by which a reader can recognise the message, and how often it occurs.
type cue struct {
	Cue   string `json:"cue"`
	Count int    `json:"count"`
}

// premise is how well a message fits the workplace, by the five elements of the NIST Phish Scale. Each is 0 to 8.
type premise struct {
	Mimics      int `json:"mimics"`
	Relevance   int `json:"relevance"`
	Situation   int `json:"situation"`
	Consequence int `json:"consequence"`
	Exposure    int `json:"exposure"`
}

// Rating is the sum of the first four elements less the fifth.
func (p premise) Rating() int {
	return p.Mimics + p.Relevance + p.Situation + p.Consequence - p.Exposure
}

// CueCount is the number of cues, with repetitions.
func (t Template) CueCount() int {
	n := 0
	for _, c := range t.Cues {
		n += c.Count
	}
	return n
}

// Difficulty is how hard the message is to detect, by the NIST Phish Scale User Guide (Technical Note 2276, 2023). Up
// to 8 cues are few, 15 and more are many; a premise of 18 and more is strong, one of up to 10 is weak.
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

// templates are the templates in the order of the file.
type templates []Template

func (t templates) byID(id string) (Template, bool) {
	i := slices.IndexFunc(t, func(x Template) bool { return x.ID == id })
	if i < 0 {
		return Template{}, false
	}
	return t[i], true
}

// readTemplates parses templates. The error lists all faults.
func readTemplates(text []byte) (templates, error) {
	var list templates
	if err := yaml.UnmarshalStrict(text, &list); err != nil {
		return nil, fmt.Errorf("read phishing templates: %w", err)
	}
	var faults []error
	seen := map[string]bool{}
	for _, x := range list {
		if !exercise.ValidID(x.ID) || seen[x.ID] {
			faults = append(faults, fmt.Errorf("template %q: the id is missing, invalid or used twice", x.ID))
		}
		seen[x.ID] = true
		if x.From == "" || x.Address == "" || x.Subject == "" || len(x.Paragraphs) == 0 {
			faults = append(faults, fmt.Errorf("template %q: want from, address, subject and paragraphs", x.ID))
		}
		if !x.Ordinary && (x.Link == "" || x.Shows == "" || x.CueCount() == 0) {
			faults = append(faults, fmt.Errorf("template %q: want link, shows and cues, or ordinary", x.ID))
		}
		if x.Ordinary && (x.Link != "" || len(x.Cues) > 0) {
			faults = append(faults, fmt.Errorf("template %q: an ordinary message has no link and no cues", x.ID))
		}
		p := x.Premise
		for _, n := range []int{p.Mimics, p.Relevance, p.Situation, p.Consequence, p.Exposure} {
			if n < 0 || n > 8 {
				faults = append(faults, fmt.Errorf("template %q: premise %d: want 0 to 8", x.ID, n))
			}
		}
	}
	return list, errors.Join(faults...)
}
