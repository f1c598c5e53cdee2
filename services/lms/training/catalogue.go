package training

import (
	"net/http"
	"slices"
	"time"

	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

type trainingView struct {
	Away      string
	Due       riskview.Due
	Escalated string // what that means, if it is
	Known     bool   // whether Due is
	First     *riskview.LowerRow
	Score     risk.Score
	Level     risk.Level
	Catalogue []moduleRow
	History   []LessonRow
}

type moduleRow struct {
	risk.Module
	About []string // what it teaches, in words
	Yours int      // how many of the person's reasons it is about
	Open  string   // id of the open lesson
	Last  *LessonRow
	After *risk.Score // what passing it would give
	Drop  int64
}

// LessonRow is a lesson in a list. Times are in the zone of the person who reads it.
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

func rowOf(t Taught, loc *time.Location) LessonRow {
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

// HistoryOf are lessons as rows, with times in loc.
func HistoryOf(all []Taught, loc *time.Location) []LessonRow {
	rows := make([]LessonRow, 0, len(all))
	for _, t := range all {
		rows = append(rows, rowOf(t, loc))
	}
	return rows
}

// LinkOpen notes at an act which of the lessons is the open one about it, if there is one.
func LinkOpen(l *riskview.LowerRow, lessons []LessonRow) {
	if l == nil {
		return
	}
	for _, h := range lessons {
		if h.Module == l.ID && (h.State == StateReady || h.State == stateWriting) {
			l.Open = h.ID
		}
	}
}

// ShowTraining lists the modules, and which of them would lower the viewer's score by how much.
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
			m.Escalated = req.Viewer.Escalated(a.Escalation)
		}
	} else {
		m.Away = "The risk scorer does not answer at the moment, so no new lesson can be chosen for you. Open lessons and what you have learnt are here."
		req.Status = http.StatusServiceUnavailable
		req.W.Header().Set("Retry-After", "5")
	}
	LinkOpen(m.First, m.History)
	for _, module := range risk.Modules {
		row := moduleRow{Module: module}
		for _, t := range module.Teaches {
			row.About = append(row.About, risk.Words(t, 1))
			if slices.ContainsFunc(a.Reasons, func(r risk.Reason) bool { return r.Verb == t }) {
				row.Yours++
			}
		}
		for i := range m.History {
			h := &m.History[i]
			if h.Module != module.ID {
				continue
			}
			if h.State == StateReady || h.State == stateWriting {
				row.Open = h.ID
			} else if row.Last == nil && h.Completion != nil {
				row.Last = h
			}
		}
		for _, x := range explained.Lower {
			if x.Act == risk.PassModule && x.ID == module.ID {
				row.After, row.Drop = &x.After, x.Drop
			}
		}
		m.Catalogue = append(m.Catalogue, row)
	}
	slices.SortStableFunc(m.Catalogue, func(a, b moduleRow) int {
		switch {
		case a.Drop < b.Drop:
			return -1
		case a.Drop > b.Drop:
			return 1
		}
		return 0
	})
	return tr.site.Render(req, "training", "My training", "/training", m)
}
