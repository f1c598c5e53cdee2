// Package riskview turns an assessment of the risk scorer into the model of a page: the score, its reasons and their
// events, the acts that would lower it, and when training is due.
package riskview

import (
	"fmt"
	"slices"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// View is the model of a person's risk with its explanation.
type View struct {
	Person  risk.Standing
	Own     bool   // the viewer is this person
	Missing string // why the risk cannot be shown; empty: it is shown
	A       risk.Assessment
	Gauge   chart.Gauge
	Trend   *chart.TrendChart
	Sources []sourceRow
	Reasons []ReasonRow
	Lower   []LowerRow
	First   *LowerRow // the recommended module
	Pattern *patternRow
	Cap     int64 // millionths cut off because a score is at most 1; negative or 0
	Due     Due
	Weighs  string // how the weight of events decays in the profile of the score
	Base    string // prefix of the paths of the reasons' pages
}

// sourceRow is one of the four groups of sources: its weight, how much of it is used, and its part of the score.
type sourceRow struct {
	Name, What, Class string
	Weight, Used      float64
	Part              int64 // millionths of the score, before pattern and cap
	Bar, Stack        chart.Share
}

// ReasonRow is one reason for a score with its events, of which Shorten keeps the first ones.
type ReasonRow struct {
	risk.Reason
	Source activity.Source
	Class  string
	Bar    chart.Share
	Lasts  string // until when a state counts in full; empty for an event
	Events []EventRow
	All    int    // number of events with a part of the score
	Light  int    // number of events with less than a millionth each
	Module string // title of the module that teaches it
}

// EventRow is one event with its part of the score in millionths.
type EventRow struct {
	ID, Detail string
	Words      string // what happened, in the list of a pattern's events
	At         time.Time
	Part       int64
}

// TextOfPage is the most bytes of event ids and details on a page, so that a compressed page stays below 100 KB.
const TextOfPage = 48 << 10

func textOf(rows []EventRow) int {
	n := 0
	for _, r := range rows {
		n += len(r.ID) + len(r.Detail)
	}
	return n
}

// Fitting returns the first rows whose ids and details fit into text bytes, at least one.
func Fitting(rows []EventRow, text int) []EventRow {
	for i := range rows {
		if text -= textOf(rows[i : i+1]); text < 0 && i > 0 {
			return rows[:i]
		}
	}
	return rows
}

// lasting says for each state until when it counts in full.
var lasting = map[activity.Verb]string{
	activity.TrainingStale:         "It weighs in full until a training is passed.",
	activity.OverdueModule:         "It weighs in full until the module is passed.",
	activity.OverdueSecurityTicket: "It weighs in full until the ticket is closed.",
}

// weighs says how the weight of events decays in a profile.
func weighs(p *risk.Profile) string {
	text := fmt.Sprintf(
		"What happened weighs in full for %s, and nothing after that.",
		words.Span(time.Duration(p.Window)),
	)
	if p.HalfLife > 0 {
		text = fmt.Sprintf("What happened weighs half as much %s later.", words.Span(time.Duration(p.HalfLife)))
	}
	return text + " What lasts, such as an overdue ticket, weighs in full until it ends."
}

// LowerRow is an act that would lower the score.
type LowerRow struct {
	risk.LowerAct
	Drop   int64 // change of the score in millionths, negative
	Level  risk.Level
	Change bool   // the level changes, too
	Open   string // id of the open lesson of this module, if any
}

// Starts reports whether the act is passing a module of the catalogue.
func (r LowerRow) Starts() bool { return r.Act == risk.PassModule && r.known() }

func (r LowerRow) known() bool { _, ok := risk.ModuleByID(r.ID); return ok }

type patternRow struct {
	Name, Words string
	How         string // its effect on the score
	Part        int64
	Events      []EventRow // in order of time; Shorten keeps the first ones
	All         int        // number of events
	Stack       chart.Share
}

// groupWhat describes each group of sources, indexed by activity.Group.
var groupWhat = [activity.Groups]string{
	"commits, reviews, dependencies",
	"sign-ins, rights, keys",
	"malware, phishing, policy",
	"training and security tickets",
}

// GroupClass are the CSS classes of the groups of sources, indexed by activity.Group.
var GroupClass = [activity.Groups]string{"code", "access", "alerts", "learning"}

// patternOf describes the effect of a pattern on a score, with the pattern's events.
func patternOf(a risk.Assessment, c risk.Contribution) *patternRow {
	row := &patternRow{Name: c.Detail, How: fmt.Sprintf("× %.1f", a.Multiplier.Float()), Part: c.Part, All: len(c.Events)}
	parts := map[string]int64{}
	for _, e := range a.Contributions {
		parts[e.Event] = e.Part
	}
	for _, e := range c.Events {
		row.Events = append(
			row.Events,
			EventRow{
				ID:     e.Event,
				Words:  words.Sentence(risk.Words(e.Verb, 1)),
				Detail: e.Detail,
				At:     e.At,
				Part:   parts[e.Event],
			},
		)
	}
	if a.Floor > 0 {
		row.How = fmt.Sprintf("at least %.2f", a.Floor.Float())
		if c.Part == 0 {
			row.How += ", which the events alone come to"
		}
	}
	if p, err := risk.ProfileByName(a.Profile); err == nil {
		row.Words = p.PatternWords(c.Detail)
	}
	return row
}

// Explain makes the view of an assessment, with all events of every reason.
func Explain(p risk.Standing, a risk.Assessment) View {
	loc := words.Location(p.Zone)
	profile := chart.ProfileOf(a.Profile)
	levels := chart.BoundsOf(profile.Levels)
	v := View{
		Person: p,
		A:      a,
		Gauge:  chart.DrawGauge(a.Score, a.Level, levels),
		Trend:  chart.DrawTrend(a.Trend, levels, loc),
		Due:    DueOf(a, p.Manager, loc),
		Weighs: weighs(profile),
	}
	events := map[activity.Verb][]EventRow{}
	for _, c := range a.Contributions {
		switch c.Line {
		case risk.EventLine:
			events[c.Verb] = append(events[c.Verb], EventRow{ID: c.Event, Detail: c.Detail, At: c.At, Part: c.Part})
		case risk.PatternLine:
			v.Pattern = patternOf(a, c)
		case risk.CapLine:
			v.Cap = c.Part
		}
	}
	var end float64
	v.Sources, end = sourcesOf(a, profile)
	if v.Pattern != nil {
		v.Pattern.Stack = stacked(end, min(1-end, float64(v.Pattern.Part)/1e6), 0, "pattern")
	}
	v.Reasons = reasonsOf(a, events)
	v.Lower, v.First = lowerOf(a, levels)
	return v
}

// sourcesOf are the groups of sources with their parts of the score, and the sum of the parts.
func sourcesOf(a risk.Assessment, profile *risk.Profile) (rows []sourceRow, end float64) {
	weights, known := profile.Weights[a.Role]
	if !known {
		weights = profile.Otherwise
	}
	weight := [...]risk.Micro{weights.Git, weights.IAM, weights.SIEM, weights.Training}
	used := [...]risk.Score{a.Sources.Git, a.Sources.IAM, a.Sources.SIEM, a.Sources.Training}
	var parts [activity.Groups]int64
	for _, c := range a.Contributions {
		if c.Line == risk.EventLine {
			parts[c.Verb.Source().Group()] += c.Part
		}
	}
	const gap = 2 // between two groups, in thousandths
	for i, part := range parts {
		width := float64(part) / 1e6
		rows = append(rows, sourceRow{
			Name:   words.GroupNames[i],
			What:   groupWhat[i],
			Class:  GroupClass[i],
			Weight: weight[i].Float(),
			Used:   used[i].Float(),
			Part:   part,
			Bar:    chart.Bar(used[i].Float(), GroupClass[i]),
			Stack:  stacked(end, width, gap, GroupClass[i]),
		})
		end += width
	}
	return rows, end
}

// stacked is a bar of a score from at, less a gap in thousandths.
func stacked(at, width, gap float64, class string) chart.Share {
	return chart.Share{
		X:     fmt.Sprintf("%.1f", 1000*at),
		W:     fmt.Sprintf("%.1f", max(0, 1000*width-gap)),
		Class: class,
	}
}

// reasonsOf are the reasons of an assessment with their events. The largest reason has the full bar.
func reasonsOf(a risk.Assessment, events map[activity.Verb][]EventRow) []ReasonRow {
	var most int64 = 1
	for _, r := range a.Reasons {
		most = max(most, r.Part)
	}
	var rows []ReasonRow
	for _, r := range a.Reasons {
		class := GroupClass[r.Verb.Source().Group()]
		row := ReasonRow{
			Reason: r,
			Source: r.Verb.Source(),
			Class:  class,
			Bar:    chart.Bar(float64(r.Part)/float64(most), class),
			Lasts:  lasting[r.Verb],
			Events: events[r.Verb],
			All:    len(events[r.Verb]),
			Light:  max(0, r.Count-len(events[r.Verb])),
		}
		if m := risk.ModulesFor(r.Verb); len(m) > 0 {
			row.Module = m[0].Title
		}
		rows = append(rows, row)
	}
	return rows
}

// lowerOf are the acts that would lower a score, and the recommended module among them.
func lowerOf(a risk.Assessment, levels chart.Bounds) (rows []LowerRow, first *LowerRow) {
	for _, x := range a.Lower {
		row := LowerRow{LowerAct: x, Drop: x.After.Micro() - a.Score.Micro(), Level: levels.Level(x.After)}
		row.Change = row.Level != a.Level
		rows = append(rows, row)
	}
	if i := slices.IndexFunc(rows, LowerRow.Starts); i >= 0 {
		return rows, &rows[i]
	}
	if len(a.Reasons) == 0 {
		return rows, nil
	}
	// With many reasons, no single module may lower the score. The first of several still counts.
	id := Recommended(a)
	act := risk.LowerAct{Act: risk.PassModule, ID: id, Title: words.ModuleTitle(id), After: a.Score}
	return rows, &LowerRow{LowerAct: act, Level: a.Level}
}

// Shorten keeps of each reason, and of the pattern, the first events that fit on one page. All events are on the page
// of the reason.
func (v *View) Shorten() {
	lists := []*[]EventRow{}
	for i := range v.Reasons {
		lists = append(lists, &v.Reasons[i].Events)
	}
	if v.Pattern != nil {
		lists = append(lists, &v.Pattern.Events)
	}
	text := 0
	for _, list := range lists {
		text += textOf(*list)
	}
	if text <= TextOfPage {
		return
	}
	for _, list := range lists {
		*list = Fitting(*list, TextOfPage/len(lists))
	}
}

// Recommended is the id of the module that lowers the score most. If no module does, it is the one that teaches against
// the largest part of the score.
func Recommended(a risk.Assessment) string {
	for _, x := range a.Lower {
		if _, known := risk.ModuleByID(x.ID); x.Act == risk.PassModule && known {
			return x.ID
		}
	}
	best, most := risk.Modules[0].ID, int64(0)
	for _, m := range risk.Modules {
		var part int64
		for _, r := range a.Reasons {
			if slices.Contains(m.Teaches, r.Verb) {
				part += r.Part
			}
		}
		if part > most {
			best, most = m.ID, part
		}
	}
	return best
}
