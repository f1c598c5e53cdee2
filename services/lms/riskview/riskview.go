// Package riskview puts an assessment of the risk scorer into what a page shows: the score, its reasons and their
// events, what would lower it, and when training is due.
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

// View is a person's risk with everything that explains it.
type View struct {
	Person  risk.Standing
	Mine    bool   // whether the viewer is that person
	Away    string // why there is nothing to show, if so
	A       risk.Assessment
	Gauge   chart.Gauge
	Trend   *chart.TrendChart
	Sources []sourceRow
	Reasons []ReasonRow
	Lower   []LowerRow
	First   *LowerRow // the module to begin with
	Pattern *patternRow
	Cap     int64 // millionths cut off because a score ends at 1; negative, or 0
	Due     Due
	Weighs  string // how what happened loses its weight, in the profile that made the score
	Base    string // of the addresses of the reasons' own pages
}

// sourceRow is one of the four groups: what it holds, how much of it is used, what it adds.
type sourceRow struct {
	Name, What, Class string
	Weight, Used      float64
	Part              int64 // millionths of the score, without pattern and cap
	Bar, Stack        chart.Share
}

// ReasonRow is one reason for a score, with the first of its events.
type ReasonRow struct {
	risk.Reason
	Source activity.Source
	Class  string
	Bar    chart.Share
	Lasts  string // until when it weighs in full, where it is a state
	Events []EventRow
	All    int    // events that add something; Events are the first of them
	Light  int    // events that count still, and add less than a millionth each
	Module string // that teaches it
}

// EventRow is one event with what it adds, in millionths of a score.
type EventRow struct {
	ID, Detail string
	Words      string // what it was, where the row does not stand below what it was
	At         time.Time
	Part       int64
}

// TextOfPage is how many bytes of ids and details of events a page holds: packed, it stays well below 100 KB whatever
// they say.
const TextOfPage = 48 << 10

func textOf(rows []EventRow) int {
	n := 0
	for _, r := range rows {
		n += len(r.ID) + len(r.Detail)
	}
	return n
}

// Fitting are the first of rows whose text fits into so many bytes, one at least.
func Fitting(rows []EventRow, text int) []EventRow {
	for i := range rows {
		if text -= textOf(rows[i : i+1]); text < 0 && i > 0 {
			return rows[:i]
		}
	}
	return rows
}

// lasting says of each state until when it weighs in full.
var lasting = map[activity.Verb]string{
	activity.TrainingStale:         "It weighs in full until a training is passed.",
	activity.OverdueModule:         "It weighs in full until the module is passed.",
	activity.OverdueSecurityTicket: "It weighs in full until the ticket is closed.",
}

// weighs says how what happened loses its weight.
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

// LowerRow is an act that would lower the score, and by how much.
type LowerRow struct {
	risk.LowerAct
	Drop   int64 // millionths
	Level  risk.Level
	Change bool   // of the level
	Open   string // id of the open lesson about it
}

// Starts says whether the act is a module, which can be begun here.
func (r LowerRow) Starts() bool { return r.Act == risk.PassModule && r.known() }

func (r LowerRow) known() bool { _, ok := risk.ModuleByID(r.ID); return ok }

type patternRow struct {
	Name, Words string
	How         string // what it does to the score
	Part        int64
	Events      []EventRow // what it is made of, in order of time
	All         int        // how many those are; Events are the first of them
	Stack       chart.Share
}

// groupWhat says what each group is about.
var groupWhat = [activity.Groups]string{
	"commits, reviews, dependencies",
	"sign-ins, rights, keys",
	"malware, phishing, policy",
	"training and security tickets",
}

// GroupClass are the CSS classes of the four groups.
var GroupClass = [activity.Groups]string{"code", "access", "alerts", "learning"}

// patternOf says in plain words what a pattern did to a score, and by which events.
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

// Explain makes a view of an assessment, with the events of every reason.
func Explain(p risk.Standing, a risk.Assessment) View {
	loc := words.Location(p.Zone)
	profile := chart.ProfileOf(a.Profile)
	levels := chart.BoundsOf(profile.Levels)
	weights, known := profile.Weights[a.Role]
	if !known {
		weights = profile.Otherwise
	}
	v := View{
		Person: p,
		A:      a,
		Gauge:  chart.DrawGauge(a.Score, a.Level, levels),
		Trend:  chart.DrawTrend(a.Trend, levels, loc),
		Due:    DueOf(a, p.Manager, loc),
		Weighs: weighs(profile),
	}

	used := [...]risk.Score{a.Sources.Git, a.Sources.IAM, a.Sources.SIEM, a.Sources.Training}
	share4 := [...]risk.Micro{weights.Git, weights.IAM, weights.SIEM, weights.Training}
	var parts [4]int64
	events := map[activity.Verb][]EventRow{}
	var pattern *patternRow
	for _, c := range a.Contributions {
		switch c.Line {
		case risk.EventLine:
			parts[c.Verb.Source().Group()] += c.Part
			events[c.Verb] = append(events[c.Verb], EventRow{ID: c.Event, Detail: c.Detail, At: c.At, Part: c.Part})
		case risk.PatternLine:
			pattern = patternOf(a, c)
		case risk.CapLine:
			v.Cap = c.Part
		}
	}
	at := 0.0
	for i := range parts {
		width := float64(parts[i]) / 1e6
		row := sourceRow{
			Name:   words.GroupNames[i],
			What:   groupWhat[i],
			Class:  GroupClass[i],
			Weight: share4[i].Float(),
			Used:   used[i].Float(),
			Part:   parts[i],
			Bar:    chart.Bar(used[i].Float(), GroupClass[i]),
		}
		row.Stack = chart.Share{
			X:     fmt.Sprintf("%.1f", 1000*at),
			W:     fmt.Sprintf("%.1f", max(0, 1000*width-2)),
			Class: GroupClass[i],
		}
		at += width
		v.Sources = append(v.Sources, row)
	}
	if pattern != nil {
		pattern.Stack = chart.Share{
			X:     fmt.Sprintf("%.1f", 1000*at),
			W:     fmt.Sprintf("%.1f", max(0, 1000*min(1-at, float64(pattern.Part)/1e6))),
			Class: "pattern",
		}
		v.Pattern = pattern
	}
	var most int64 = 1
	for _, r := range a.Reasons {
		most = max(most, r.Part)
	}
	for _, r := range a.Reasons {
		g := r.Verb.Source().Group()
		row := ReasonRow{
			Reason: r,
			Source: r.Verb.Source(),
			Class:  GroupClass[g],
			Bar:    chart.Bar(float64(r.Part)/float64(most), GroupClass[g]),
		}
		row.Events, row.Lasts = events[r.Verb], lasting[r.Verb]
		row.All, row.Light = len(row.Events), max(0, r.Count-len(row.Events))
		if m := risk.ModulesFor(r.Verb); len(m) > 0 {
			row.Module = m[0].Title
		}
		v.Reasons = append(v.Reasons, row)
	}
	for _, x := range a.Lower {
		row := LowerRow{LowerAct: x, Drop: x.After.Micro() - a.Score.Micro(), Level: levels.Level(x.After)}
		row.Change = row.Level != a.Level
		v.Lower = append(v.Lower, row)
	}
	if i := slices.IndexFunc(v.Lower, LowerRow.Starts); i >= 0 {
		v.First = &v.Lower[i]
	} else if len(a.Reasons) > 0 {
		// So much has come together that no single lesson lowers the score; the first of several is worth it all the same.
		id := Recommended(a)
		v.First = &LowerRow{LowerAct: risk.LowerAct{Act: risk.PassModule, ID: id, Title: words.ModuleTitle(id), After: a.Score}, Level: a.Level}
	}
	return v
}

// Shorten leaves of each reason, and of the pattern, as many events as fit on one page. The rest is on a page of its
// own.
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

// Recommended is the module that lowers the score most, else the one about what weighs most.
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
