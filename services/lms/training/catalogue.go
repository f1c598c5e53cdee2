package training

import (
	"cmp"
	"slices"
	"time"

	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

type trainingView struct {
	Missing   string // why no lesson can be chosen; empty: one can
	Due       riskview.Due
	Escalated string // what an escalation means; empty: there is none
	Known     bool   // Due is known
	First     *riskview.LowerRow
	Score     risk.Score
	Level     risk.Level
	Catalogue []moduleRow
	History   []LessonRow
}

type moduleRow struct {
	risk.Module
	About []string // the acts that it teaches against, in words
	Yours int      // number of the person's reasons among them
	Open  string   // id of the open lesson, if any
	Last  *LessonRow
	After *risk.Score // the score after passing it, if known
	Drop  int64       // change of the score in millionths, negative
}

// LessonRow is a lesson in a list. Times are in the zone of the reader.
type LessonRow struct {
	ID, Module, State string
	Origin            string
	Asked             time.Time
	Tries             int
	Completion        *completion
	Drop              int64
	Ended             time.Time
	Percent           float64
}

// rowOf is a lesson as a row, with times in loc.
func rowOf(t LessonRecord, loc *time.Location) LessonRow {
	r := LessonRow{
		ID:         t.ID.String(),
		Module:     t.Module,
		State:      t.State,
		Asked:      t.Asked.In(loc),
		Tries:      len(t.Attempts),
		Completion: t.Completion,
	}
	if t.Lesson != nil {
		r.Origin = OriginWords(*t.Lesson)
	}
	if c := t.Completion; c != nil {
		r.Ended, r.Percent = c.At.In(loc), c.Share
		if c.Before != nil && c.After != nil {
			r.Drop = c.After.Micro() - c.Before.Micro()
		}
	}
	return r
}

func (r LessonRow) open() bool { return r.State == StateReady || r.State == stateWriting }

// HistoryOf are lessons as rows, with times in loc.
func HistoryOf(all []LessonRecord, loc *time.Location) []LessonRow {
	rows := make([]LessonRow, 0, len(all))
	for _, t := range all {
		rows = append(rows, rowOf(t, loc))
	}
	return rows
}

// LinkOpen sets l.Open to the open lesson of its module. l may be nil.
func LinkOpen(l *riskview.LowerRow, lessons []LessonRow) {
	if l == nil {
		return
	}
	for _, h := range lessons {
		if h.Module == l.ID && h.open() {
			l.Open = h.ID
		}
	}
}

// ShowTraining lists the modules, the one that would lower the viewer's score most first, and the viewer's lessons.
func (tr *Training) ShowTraining(req *site.Request) error {
	loc := words.Location(req.Viewer.Zone())
	lessons, err := tr.Store.Lessons(req.Ctx(), req.Viewer.Person, 100)
	if err != nil {
		return err
	}
	m := trainingView{History: HistoryOf(lessons, loc)}
	var explained riskview.View
	a, err := tr.scorer.Risk(req.Ctx(), req.Viewer.Person)
	if err == nil && req.Viewer.Self != nil {
		explained = riskview.Explain(*req.Viewer.Self, a)
		m.Due, m.Known, m.First, m.Score, m.Level = explained.Due, true, explained.First, a.Score, a.Level
		if m.Due.State == riskview.DueEscalated {
			m.Escalated = words.EscalatedForLearner(
				a.Escalation, req.Viewer.Manager, req.Viewer.Peers, site.SmallestGroup,
			)
		}
	} else {
		m.Missing = site.ScorerUnavailable +
			", so no new lesson can be chosen for you. Open lessons and what you have learnt are here."
		req.MarkUnavailable()
	}
	LinkOpen(m.First, m.History)
	m.Catalogue = catalogueOf(a.Reasons, explained.Lower, m.History)
	return tr.site.Render(req, "training", "My training", "/training", m)
}

// catalogueOf lists the modules for a person with these reasons, acts that lower the score, and lessons.
func catalogueOf(reasons []risk.Reason, lower []riskview.LowerRow, history []LessonRow) []moduleRow {
	var rows []moduleRow
	for _, module := range risk.Modules {
		row := moduleRow{Module: module}
		for _, t := range module.Teaches {
			row.About = append(row.About, risk.Words(t, 1))
			if slices.ContainsFunc(reasons, func(r risk.Reason) bool { return r.Verb == t }) {
				row.Yours++
			}
		}
		for i := range history {
			h := &history[i]
			if h.Module != module.ID {
				continue
			}
			if h.open() {
				row.Open = h.ID
			} else if row.Last == nil && h.Completion != nil {
				row.Last = h
			}
		}
		for _, x := range lower {
			if x.Act == risk.PassModule && x.ID == module.ID {
				row.After, row.Drop = &x.After, x.Drop
			}
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b moduleRow) int { return cmp.Compare(a.Drop, b.Drop) })
	return rows
}
