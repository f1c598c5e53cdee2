package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/lab/progress"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// Routes that the lab's driver itself calls. Who serves them stands in the topology.
const (
	routeRoster     topology.Route = "PUT /v1/people"
	routeClock      topology.Route = "GET /v1/clock"
	routeSetClock   topology.Route = "PUT /v1/clock"
	routeWatermarks topology.Route = "GET /v1/watermarks"
	routeTraining   topology.Route = "PUT /v1/training"
	routeLinks      topology.Route = "POST /v1/links"
	routeSpool      topology.Route = "GET /v1/spool"
	routePlays      topology.Route = "POST /v1/plays"
	routeExercises  topology.Route = "POST /v1/exercises"
)

// Spool is a collector's count of what it took in; its own JSON has more.
type Spool struct {
	Accepted     uint64 `json:"accepted"`
	Spooled      uint64 `json:"spooled"`
	Stored       uint64 `json:"stored"`
	Duplicate    uint64 `json:"duplicate"`
	DeadLettered uint64 `json:"dead_lettered"`
	Rejected     uint64 `json:"rejected"`
	Seq          uint64 `json:"seq"`
	Watermark    uint64 `json:"watermark"`
	// GivenUp is how many were rejected or dead-lettered, by reason.
	GivenUp  map[string]uint64 `json:"given_up"`
	Awaiting int               `json:"awaiting"`
}

// Watermarks is how far the scorer has come; its own JSON has more.
type Watermarks struct {
	Position   int64 `json:"position"`
	Events     int64 `json:"events"`
	Watermarks []struct {
		Collector string `json:"collector"`
		Seq       uint64 `json:"seq"`
	} `json:"watermarks"`
	DeadLetters int64 `json:"dead_letters"`
}

// Training is the body of PUT /v1/training: what the learning system is told of the time before it.
type Training struct {
	Events []activity.Event `json:"events"`
}

// Seed gives the lab its company and its history: the roster, the training records, and thirty days (or as many as spec says)
// that every simulator delivers as its vendor would. It returns when all of it has been scored. It may be repeated: what has
// arrived already is known. It returns the position of the scorer's event log after it.
func Seed(ctx context.Context, o *Operator, spec Spec, p progress.Reporter) (position int64, err error) {
	staff := people.Company(spec.Seed, spec.People, people.Published)
	if err := progress.Step(p, fmt.Sprintf("roster of %d people", len(staff)), func() error {
		return o.Ask(ctx, routeRoster, people.Roster(staff), nil)
	}); err != nil {
		return 0, err
	}
	var at Watermarks
	err = progress.Step(p, fmt.Sprintf("%d days of history, through the collectors", spec.Days), func() error {
		play := world.Play{ID: fmt.Sprintf("history-%d-%d-%d", spec.Seed, spec.People, spec.Days), Kind: world.History, Seed: spec.Seed, People: spec.People, Days: spec.Days}
		group, both := errgroup.WithContext(ctx)
		group.Go(func() error {
			events := routine.TrainingEvents(routine.Month(staff, spec.Days))
			return whileAway(both, func() error { return o.Ask(both, routeTraining, Training{Events: events}, nil) })
		})
		group.Go(func() error { return o.Perform(both, play) })
		if err := group.Wait(); err != nil {
			return err
		}
		if err := o.AwaitScored(ctx); err != nil {
			return err
		}
		return o.Ask(ctx, routeWatermarks, nil, &at)
	})
	return at.Position, err
}

// Live has every simulator go on with ordinary days, at the lab's pace, if it does not do so already.
func Live(ctx context.Context, o *Operator, spec Spec) error {
	play := world.Play{ID: "live", Kind: world.Live, Seed: spec.Seed, People: spec.People}
	return o.eachSimulator(ctx, func(ctx context.Context, name string) error {
		err := o.Call(ctx, name, http.MethodPost, routePlays.Path(), play, nil)
		if isConflict(err) {
			return nil // a play of that id is on
		}
		return err
	})
}

func (o *Operator) eachSimulator(ctx context.Context, f func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range o.Node.Topology().OfKind(topology.KindSimulator) {
		group.Go(func() error { return f(ctx, w.Name) })
	}
	return group.Wait()
}

// Perform gives play to every simulator and returns when each has had all of it acknowledged.
func (o *Operator) Perform(ctx context.Context, play world.Play) error {
	return o.eachSimulator(ctx, func(ctx context.Context, name string) error {
		if err := o.Call(ctx, name, http.MethodPost, routePlays.Path(), play, nil); err != nil && !isConflict(err) {
			return err
		}
		for {
			var st world.Status
			if err := o.Call(ctx, name, http.MethodGet, routePlays.Path()+"/"+play.ID, nil, &st); err != nil {
				return err
			}
			switch st.State {
			case world.Done:
				return nil
			case world.Failed, world.Stopped:
				return fmt.Errorf("play %s of %s %s: %s", play.ID, name, st.State, st.Error)
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("play %s of %s: %d of %d delivered: %w", play.ID, name, st.Delivered, st.Issued, err)
			}
		}
	})
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// stillAfter is how long the scorer may get no further before who waits for it is told so.
const stillAfter = time.Minute

// AwaitScored returns when everything that any collector had acknowledged when it was called has come to its end, and the scorer's
// watermarks say so; what arrives meanwhile is not waited for. A scorer that gets no further for a minute is a time-out.
func (o *Operator) AwaitScored(ctx context.Context) error {
	targets, marks := map[string]uint64{}, map[string]uint64{}
	still := time.NewTimer(stillAfter)
	defer still.Stop()
	for {
		var behind []string
		for _, w := range o.Node.Topology().OfKind(topology.KindCollector) {
			target, known := targets[w.Name]
			if known && marks[w.Name] >= target {
				continue
			}
			var s Spool
			if err := o.Call(ctx, w.Name, http.MethodGet, routeSpool.Path(), nil, &s); err != nil {
				return err
			}
			if !known {
				target, targets[w.Name] = s.Seq, s.Seq
			}
			if !known || s.Watermark > marks[w.Name] {
				marks[w.Name] = s.Watermark
				still.Reset(stillAfter)
			}
			if s.Watermark < target {
				behind = append(behind, fmt.Sprintf("%s at %d of %d", w.Name, s.Watermark, target))
			}
		}
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the scorer: %s: %w", strings.Join(behind, ", "), context.Cause(ctx))
		case <-still.C:
			return &Error{Code: ExitTimeout, What: "wait for the scorer", Why: fmt.Errorf("nothing came to its end for %s: %s", stillAfter, strings.Join(behind, ", ")), Try: "lab logs " + o.scorer()}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// scorer names the workload that scores.
func (o *Operator) scorer() string { return o.Node.Topology().OfKind(topology.KindScorer)[0].Name }

// Counts says how far events have come.
func (o *Operator) Counts(ctx context.Context) (*Counts, error) {
	var w Watermarks
	if err := o.Ask(ctx, routeWatermarks, nil, &w); err != nil {
		return nil, err
	}
	clock, err := o.Clock(ctx)
	if err != nil {
		return nil, err
	}
	c := &Counts{
		Events:      w.Events,
		DeadLetters: w.DeadLetters,
		Lag:         map[string]uint64{},
		GivenUp:     map[string]map[string]uint64{},
		Clock:       clock.Now,
	}
	for _, row := range o.Node.Topology().OfKind(topology.KindCollector) {
		var s Spool
		if err := o.Call(ctx, row.Name, http.MethodGet, routeSpool.Path(), nil, &s); err != nil {
			return nil, err
		}
		c.Lag[row.Name] = s.Spooled
		if len(s.GivenUp) > 0 {
			c.GivenUp[row.Name] = s.GivenUp
		}
	}
	return c, nil
}

// Clock is the lab's time.
func (o *Operator) Clock(ctx context.Context) (risk.Clock, error) {
	var c risk.Clock
	return c, o.Ask(ctx, routeClock, nil, &c)
}

// clockChange is the body of PUT /v1/clock.
type clockChange struct {
	Now  time.Time `json:"now,omitzero"`
	Pace float64   `json:"pace,omitzero"`
}

// SetPace sets how many seconds of the lab pass in one.
func (o *Operator) SetPace(ctx context.Context, pace float64) error {
	return o.Ask(ctx, routeSetClock, clockChange{Pace: pace}, nil)
}

// Forward moves the lab's time to t; a time that is past already is no error.
func (o *Operator) Forward(ctx context.Context, t time.Time) error {
	err := o.Ask(ctx, routeSetClock, clockChange{Now: t}, nil)
	if isConflict(err) {
		return nil
	}
	return err
}

// FindPeople is the command that says who there is.
const FindPeople = "lab people"

// People is the roster with everybody's score, the highest first.
func People(ctx context.Context, o *Operator) ([]risk.Standing, error) {
	var roster []risk.Standing
	if err := o.Ask(ctx, "GET /v1/people", nil, &roster); err != nil {
		return nil, fmt.Errorf("ask who there is: %w", err)
	}
	return roster, nil
}

// linkRequest is the body of POST /v1/links; link is its answer.
type linkRequest struct {
	Person string `json:"person,omitempty"`
	Role   string `json:"role,omitempty"`
}

type link struct {
	Path    string    `json:"path"`
	Expires time.Time `json:"expires"`
}

// Link makes a one-time sign-in link for person, or for the instructor when person is empty.
func (o *Operator) Link(ctx context.Context, dashboard, person string) (string, error) {
	req := linkRequest{Person: person}
	if person == "" {
		req.Role = "instructor"
	}
	return o.link(ctx, dashboard, req)
}

// LinkAs makes a one-time sign-in link for a role that is nobody's own: instructor or admin.
func (o *Operator) LinkAs(ctx context.Context, dashboard, role string) (string, error) {
	return o.link(ctx, dashboard, linkRequest{Role: role})
}

func (o *Operator) link(ctx context.Context, dashboard string, req linkRequest) (string, error) {
	var l link
	if err := o.Ask(ctx, routeLinks, req, &l); isNotFound(err) {
		return "", &Error{Code: ExitUsage, What: "make a sign-in link", Why: err, Try: FindPeople}
	} else if err != nil {
		return "", fmt.Errorf("make a sign-in link: %w", err)
	}
	return dashboard + l.Path, nil
}

// proveWithin is how long a lab has to show that it works. The figures of a large company take a while to be made the
// first time, and until then its first page is answered 503.
const proveWithin = 3 * time.Minute

// Prove shows that the lab works from end to end: an act of one of its people goes through a simulator, a collector and
// the scorer, and the dashboard serves a page to a person who has signed in. What fails is tried again until
// proveWithin has passed.
func Prove(ctx context.Context, o *Operator, dashboard string, spec Spec) error {
	ctx, cancel := context.WithTimeout(ctx, proveWithin)
	defer cancel()
	if err := again(ctx, func() error { return proveEvent(ctx, o, spec) }); err != nil {
		return err
	}
	return again(ctx, func() error {
		link, err := o.Link(ctx, dashboard, "")
		if err != nil {
			return err
		}
		return visit(ctx, link)
	})
}

// awayAtMost is how long an answer may be 503 before the history is given up: a large company's is taken in for minutes.
const awayAtMost = 10 * time.Minute

// whileAway does what may be done again until the answer is another than 503, or until ctx or awayAtMost has passed.
func whileAway(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, awayAtMost)
	defer cancel()
	for {
		err := do()
		if err == nil || httpjson.FromError(err).Status != http.StatusServiceUnavailable || pause(ctx, time.Second) != nil {
			return err
		}
	}
}

// again tries until do succeeds, or until ctx ends: then the error is what do said last.
func again(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || pause(ctx, 250*time.Millisecond) != nil {
			return err
		}
	}
}

func proveEvent(ctx context.Context, o *Operator, spec Spec) error {
	clock, err := o.Clock(ctx)
	if err != nil {
		return err
	}
	staff := people.Company(spec.Seed, spec.People, people.Published)
	run := fmt.Sprintf("probe-%d", time.Now().UnixNano())
	act := routine.Act{ID: run, At: clock.Now, Person: staff[0].ID, Source: activity.Git, Verb: activity.Commit, Repository: "lab", Path: "README.md", Detail: "probe"}
	var before, after Watermarks
	if err := o.Ask(ctx, routeWatermarks, nil, &before); err != nil {
		return err
	}
	if err := o.Perform(ctx, world.Play{ID: run, Kind: world.Timeline, Seed: spec.Seed, People: spec.People, Acts: []routine.Act{act}}); err != nil {
		return fmt.Errorf("a probe event: %w", err)
	}
	if err := o.AwaitScored(ctx); err != nil {
		return fmt.Errorf("a probe event: %w", err)
	}
	if err := o.Ask(ctx, routeWatermarks, nil, &after); err != nil {
		return err
	}
	if after.Events <= before.Events {
		return errors.New("a probe event: it was acknowledged, but the scorer has no more events than before")
	}
	return nil
}
