package console

import (
	"strings"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/site"
)

type exercisesView struct{ Rows []exerciseRow }

type exerciseRow struct {
	exercise.Exercise
	Done   int // number of steps with an outcome
	Failed int // number of steps that failed
	Bar    chart.Share
	Steps  []stepRow
	Live   bool
}

type stepRow struct {
	exercise.Step
	Mark string // ok, failed, pending or said
}

// markOf classifies an outcome.
func markOf(outcome string) string {
	switch strings.ToLower(strings.TrimSpace(outcome)) {
	case "":
		return "pending"
	case "ok", "met", "passed", "done", "delivered", "true", "✓":
		return "ok"
	case "failed", "missed", "error", "false", "✗":
		return "failed"
	}
	return "said"
}

// ShowExercises lists the exercises with their steps, the latest first.
func (c *Console) ShowExercises(req *site.Request) error {
	all, err := c.store.exercises(req.Ctx())
	if err != nil {
		return err
	}
	var m exercisesView
	for _, e := range all {
		row := exerciseRow{Exercise: e, Live: e.State.On()}
		for _, s := range e.Steps {
			step := stepRow{Step: s, Mark: markOf(s.Outcome)}
			if step.Mark != "pending" {
				row.Done++
			}
			if step.Mark == "failed" {
				row.Failed++
			}
			row.Steps = append(row.Steps, step)
		}
		row.Bar = chart.Bar(float64(row.Done)/float64(max(1, len(e.Steps))), "accent")
		m.Rows = append(m.Rows, row)
	}
	return c.site.Render(req, "exercises", "Exercises", "/exercises", m)
}
