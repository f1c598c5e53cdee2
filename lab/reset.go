package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/scenario"
)

const (
	routeReset   topology.Route = "POST /v1/reset"
	routeShown   topology.Route = "GET /v1/exercises"
	routeResults topology.Route = "GET /v1/results"
)

// resetOrders are the bodies of POST /v1/reset, by the kind of who serves it.
type resetOrders map[string]any

// What the scorer, and what the learning system is told to forget.
type (
	scorerOrder struct {
		After  *int64   `json:"after,omitempty"`
		People []string `json:"people,omitempty"`
	}
	dashboardOrder struct {
		All       bool     `json:"all,omitempty"`
		Mark      string   `json:"mark,omitempty"`
		Exercises []string `json:"exercises,omitempty"`
		People    []string `json:"people,omitempty"`
	}
)

// give gives the learning system its order, then the scorer: what the one has yet to report must not reach the other
// afterwards.
func (orders resetOrders) give(ctx context.Context, o *Operator) error {
	for _, kind := range []string{topology.KindDashboard, topology.KindScorer} {
		for _, w := range o.Node.Topology().Serving(routeReset) {
			if order, ok := orders[w.Kind]; ok && w.Kind == kind {
				if err := o.Call(ctx, w.Name, http.MethodPost, routeReset.Path(), order, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ResetExercises takes away exercises, by id, or every one where only is nil: with their casts, and what those did,
// scored and learnt. It returns how many there were. Learners' records and the company's life stay as they are, and
// what people of the company did in an exercise is theirs. The audit and the lab's clock never go back.
func ResetExercises(ctx context.Context, o *Operator, only []string, p progress.Reporter) (n int, err error) {
	err = progress.Step(p, "take away exercises", func() error {
		for {
			var all []exercise.Exercise // the latest few hundred
			if err := o.Ask(ctx, routeShown, nil, &all); err != nil {
				return err
			}
			if only != nil {
				all = slices.DeleteFunc(all, func(e exercise.Exercise) bool { return !slices.Contains(only, e.ID) })
			}
			if len(all) == 0 {
				return nil
			}
			if err := takeAway(ctx, o, all); err != nil {
				return err
			}
			n += len(all)
		}
	})
	return n, err
}

// takeAway forgets exercises and the people who were made for them.
func takeAway(ctx context.Context, o *Operator, all []exercise.Exercise) error {
	var ids, casts []string
	for _, e := range all {
		cast, err := castOf(e)
		if err != nil {
			return err
		}
		ids, casts = append(ids, e.ID), append(casts, cast...)
	}
	if err := o.AwaitScored(ctx); err != nil {
		return err
	}
	orders := resetOrders{}
	if len(ids) > 0 {
		orders[topology.KindDashboard] = dashboardOrder{Exercises: ids, People: casts}
	}
	if len(casts) > 0 {
		orders[topology.KindScorer] = scorerOrder{People: casts}
	}
	return orders.give(ctx, o)
}

// castOf are the people who were made for an exercise. One that was played before exercises said so is asked of its
// scenario.
func castOf(e exercise.Exercise) ([]string, error) {
	if len(e.Cast) > 0 {
		return e.Cast, nil
	}
	for _, name := range scenarios.Names() {
		s, err := scenarios.Load(name)
		if err != nil {
			return nil, err
		}
		if playOf(s, e.ID) {
			return freshOf(s, e.ID), nil
		}
	}
	return nil, nil
}

// freshOf are the people whom a scenario makes for a run.
func freshOf(s *scenario.Scenario, run string) []string {
	own := *s
	own.Cast = map[string]scenario.Member{}
	for who, m := range s.Cast {
		if m.From == "" {
			own.Cast[who] = m
		}
	}
	players, err := own.Players(run, nil) // the company is not looked into: the cast has no one of it
	if err != nil {
		return nil
	}
	var ids []string
	for _, p := range own.Fresh(players) {
		ids = append(ids, p.ID)
	}
	return ids
}

// ResetScenario is ResetExercises for every play of one scenario, by its name or file. A scenario that is on, or
// whose cast is of the company, is a conflict: what the company's own people did in it cannot be told from their
// lives.
func ResetScenario(ctx context.Context, o *Operator, name string, p progress.Reporter) error {
	s, err := loadScenario("reset", name, scenarios.PlaceOf(o.Node.Topology()))
	if err != nil {
		return err
	}
	for who, m := range s.Cast {
		if m.From != "" {
			why := fmt.Errorf("%s is played by a person of the company", who)
			return &Error{Code: ExitConflict, What: "reset " + s.Name, Why: why, Try: "lab reset"}
		}
	}
	return progress.Step(p, "take away what "+s.Name+" left", func() error {
		for {
			var all []exercise.Exercise
			if err := o.Ask(ctx, routeShown, nil, &all); err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(e exercise.Exercise) bool { return !playOf(s, e.ID) })
			for i, e := range all {
				if e.State.On() {
					why, way := errors.New("it is being played"), "stop it on the console, or lab reset"
					return &Error{Code: ExitConflict, What: "reset " + s.Name, Why: why, Try: way}
				}
				if len(e.Cast) == 0 {
					all[i].Cast = freshOf(s, e.ID)
				}
			}
			if len(all) == 0 {
				return o.AwaitScored(ctx)
			}
			if err := takeAway(ctx, o, all); err != nil {
				return err
			}
		}
	})
}

// ForgetLearners deletes learners' records, and goes back to the seeded state: what came after position is forgotten,
// plays that are on are stopped, the company's ordinary life goes on. First it writes the records to two new files in
// dir, which it returns. It deletes exactly what it wrote: records that changed meanwhile are written again.
func ForgetLearners(
	ctx context.Context, o *Operator, spec Spec, position int64, dir string, p progress.Reporter,
) (files []string, err error) {
	err = progress.Step(p, "keep learners' results, and go back to the seeded state", func() error {
		if err := o.eachSimulator(ctx, func(ctx context.Context, name string) error {
			err := o.Call(ctx, name, http.MethodDelete, routePlays.Path()+"/live", nil, nil)
			if err != nil && !isNotFound(err) {
				return err
			}
			return nil
		}); err != nil {
			return err
		}
		goOn := func(err error) error { return errors.Join(err, Live(context.WithoutCancel(ctx), o, spec)) }
		if err := o.AwaitScored(ctx); err != nil {
			return goOn(err)
		}
		for again := 5; ; again-- {
			var kept exercise.Results
			if err := o.Ask(ctx, routeResults, nil, &kept); err != nil {
				return goOn(err)
			}
			var err error
			if files, err = KeepResults(kept, dir, "results-"+spec.Name); err != nil {
				return goOn(err)
			}
			orders := resetOrders{
				topology.KindDashboard: dashboardOrder{All: true, Mark: kept.Mark},
				topology.KindScorer:    scorerOrder{After: &position},
			}
			if err = orders.give(ctx, o); !changedSince(err) || again == 0 {
				return goOn(err)
			}
			for _, f := range files { // they do not hold everything any more
				if err := os.Remove(f); err != nil {
					return goOn(err)
				}
			}
			files = nil
		}
	})
	return files, err
}

// changedSince says of an answer that the records are others than those of the mark, so that nothing was deleted.
func changedSince(err error) bool {
	var e *httpjson.Error
	return errors.As(err, &e) && e.Code == "records_changed"
}

// KeepResults writes results to two new files in dir that only their owner may read, one of JSON with everything and
// one of CSV with one line for each lesson and each mail. It makes dir where there is none, and returns the files'
// absolute paths. Either both are whole and on the disk, or there is none.
func KeepResults(r exercise.Results, dir, name string) (files []string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	defer func() {
		if err != nil {
			for _, f := range files {
				os.Remove(f)
			}
			files, err = nil, &Error{
				Code: ExitPrecondition, What: "keep results; nothing was deleted", Why: err,
				Try: "lab reset --learners --yes --to ANOTHER-FOLDER",
			}
		}
	}()
	name += "-" + time.Now().UTC().Format("20060102T150405.000Z")
	for ending, write := range map[string]func(io.Writer) error{".csv": r.WriteCSV, ".json": func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}} {
		var text bytes.Buffer
		if err := write(&text); err != nil {
			return files, err
		}
		path := filepath.Join(dir, name+ending)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return files, err
		}
		files = append(files, path)
		_, err = f.Write(text.Bytes())
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return files, err
		}
	}
	slices.Sort(files)
	return files, nil
}

// run names a play of a scenario that begins at a time in milliseconds; playOf says whether an exercise is one.
func run(s *scenario.Scenario, millis int64) string {
	return s.Name + "-" + strconv.FormatInt(millis, 36)
}

func playOf(s *scenario.Scenario, id string) bool {
	rest, ok := strings.CutPrefix(id, s.Name+"-")
	millis, err := strconv.ParseInt(rest, 36, 64)
	return ok && err == nil && run(s, millis) == id
}
