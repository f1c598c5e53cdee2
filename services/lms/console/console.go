// Package console is the instructor's view of a running lab: exercises, orders, identities, the matrix of allowed
// calls, and a live feed.
//
// The learning system does not control the lab itself. A request of an instructor becomes an order. A conductor fetches
// orders over the mesh, executes them and reports the results.
package console

import (
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/topology"
)

// Config is what a Console needs.
type Config struct {
	Topology func() *topology.Topology // the topology in force; nil: none is shown
	Now      func() time.Time          // the wall clock
}

// Console serves the instructor's pages and the conductor's routes. Its methods are safe for concurrent use.
type Console struct {
	cfg   Config
	hub   *hub
	store *recordStore
	log   *auditlog.Store
	site  *site.Site
}

// recordStore is the tables of exercises, orders, hints and the feed.
type recordStore struct{ *store.Store }

// New returns a Console. Wrote must be called with the audit rows that db commits.
func New(cfg Config, db *store.Store, log *auditlog.Store, pages *site.Site) *Console {
	return &Console{cfg: cfg, hub: newHub(), store: &recordStore{db}, log: log, site: pages}
}

// Wrote adds audit rows that have just been committed to the feed.
func (c *Console) Wrote(rows []audited.Row) { c.hub.wrote(rows) }

// End ends all waiting requests and streams, so that the process can stop.
func (c *Console) End() { c.hub.end() }

// pageFrame is the part of the model that every page of the console has.
type pageFrame struct {
	Here      string
	Projector bool
	Listening bool // a conductor fetches orders
	Admin     bool
	Again     string // address of this page, for a link that reloads it without scripts
}

func (f pageFrame) frame() pageFrame { return f }

// framed is the model of a console page.
type framed interface{ frame() pageFrame }

// bar is the model of the bar above each console page.
type bar struct {
	Title string
	At    pageFrame
}

// Words are the functions that the console's templates can call.
func Words() template.FuncMap {
	return template.FuncMap{
		"asked":      asked,
		"consolebar": func(title string, at framed) bar { return bar{title, at.frame()} },
		"parts":      auditlog.FactsOf,
	}
}

// frameOf is the frame of a page at a path. It records that a viewer looks at the console, and wakes the conductor if
// there was no viewer before.
func (c *Console) frameOf(req *site.Request, here string) pageFrame {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	now := c.cfg.Now()
	if c.hub.viewers == 0 && now.Sub(c.hub.looked) > 10*time.Second && !c.hub.ended {
		close(c.hub.changed)
		c.hub.changed = make(chan struct{})
	}
	c.hub.looked = now
	return pageFrame{
		Here:      here,
		Projector: req.R.URL.Query().Get("view") == "projector",
		Admin:     req.Viewer.Admin(),
		Again:     req.R.URL.RequestURI(),
		Listening: !c.hub.asked.IsZero() && now.Sub(c.hub.asked) < 40*time.Second,
	}
}

type view struct {
	pageFrame
	Scenarios []exercise.Scenario
	Run       *runView
	Busy      bool // an exercise is running
	Feed      []feedRow
	Stuck     []stuckRow
	Orders    []placed
}

// runView is the running exercise, or the latest one.
type runView struct {
	exerciseRow
	Scenario string
	Points   int
	Hints    []hintRow
	Debrief  string // empty until the exercise has ended
}

type hintRow struct {
	Number int
	Cost   int
	Text   string // empty until it is shown
}

type stuckRow struct {
	stuck
	For time.Duration
}

// actKinds are the kinds of orders that the first page lists.
var actKinds = []string{
	exercise.OrderPlay,
	exercise.OrderStep,
	exercise.OrderPause,
	exercise.OrderResume,
	exercise.OrderStop,
	exercise.OrderReset,
	exercise.OrderForget,
	exercise.OrderRotate,
	exercise.OrderWithdraw,
	exercise.OrderReturn,
	exercise.OrderRevoke,
	exercise.OrderRestore,
}

// Show is the console's first page: the scenarios, the running exercise, the latest orders, and the feed.
func (c *Console) Show(req *site.Request) error {
	m := view{pageFrame: c.frameOf(req, "/console")}
	err := c.restoreFeed(req.Ctx())
	if err != nil {
		return err
	}
	if m.Scenarios, err = c.store.scenarios(req.Ctx()); err != nil {
		return err
	}
	exercises, err := c.store.exercises(req.Ctx())
	if err != nil {
		return err
	}
	if len(exercises) > 0 {
		if m.Run, err = c.run(req, exercises[0], m.Scenarios); err != nil {
			return err
		}
		m.Busy = m.Run.Live
	}
	if m.Orders, err = c.store.orders(req.Ctx(), 6, actKinds...); err != nil {
		return err
	}
	open, err := c.store.stuck(req.Ctx(), 12)
	if err != nil {
		return err
	}
	for _, s := range open {
		m.Stuck = append(m.Stuck, stuckRow{s, c.cfg.Now().Sub(s.Since)})
	}
	m.Feed = c.feedRows(40)
	return c.site.Render(req, "console", "Console", "/console", m)
}

// run is the view of an exercise, with its steps and hints.
func (c *Console) run(req *site.Request, e exercise.Exercise, scenarios []exercise.Scenario) (*runView, error) {
	r := &runView{exerciseRow: exerciseRow{Exercise: e, Live: e.State.On()}, Scenario: scenarioOf(e.ID), Points: 100}
	for _, s := range e.Steps {
		step := stepRow{Step: s, Mark: markOf(s.Outcome)}
		r.Done++
		if strings.HasPrefix(s.Outcome, "failed") {
			step.Mark = "failed"
			r.Failed++
		}
		r.Steps = append(r.Steps, step)
	}
	i := slices.IndexFunc(scenarios, func(s exercise.Scenario) bool { return s.Name == r.Scenario })
	if i < 0 {
		return r, nil
	}
	given, err := c.store.hintsGiven(req.Ctx(), e.ID)
	if err != nil {
		return nil, err
	}
	for n, h := range scenarios[i].Hints {
		row := hintRow{Number: n + 1, Cost: h.Cost}
		if slices.Contains(given, n+1) {
			row.Text = h.Text
			r.Points -= h.Cost
		}
		r.Hints = append(r.Hints, row)
	}
	if !r.Live {
		r.Debrief = scenarios[i].Debrief
	}
	return r, nil
}

// scenarioOf is the name of the scenario of an exercise, by the exercise's id: a name, a dash and the run.
func scenarioOf(id string) string {
	i := strings.LastIndexByte(id, '-')
	return id[:max(0, i)]
}

// DoHint shows a hint of an exercise. The hint's cost is taken off the points. 404 if there is no such hint.
func (c *Console) DoHint(req *site.Request) error {
	id := req.R.PostForm.Get("exercise")
	n, err := strconv.Atoi(req.R.PostForm.Get("number"))
	if err != nil {
		return badOrder("The form does not say which hint.")
	}
	all, err := c.store.scenarios(req.Ctx())
	if err != nil {
		return err
	}
	exercises, err := c.store.exercises(req.Ctx())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(exercises, func(e exercise.Exercise) bool { return e.ID == id })
	if i < 0 {
		return site.NotFound()
	}
	for _, s := range all {
		if s.Name == scenarioOf(id) && n >= 1 && n <= len(s.Hints) {
			if err := c.store.giveHint(req.Ctx(), id, n, s.Hints[n-1], req.Viewer.Principal); err != nil {
				return err
			}
			return back(req, "/console")
		}
	}
	return site.NotFound()
}

// ShowEvents is a stream of server-sent events "changed". They have no content: a page that receives one reloads its
// parts.
func (c *Console) ShowEvents(req *site.Request) error {
	const longest, burst = 5 * time.Minute, 120 * time.Millisecond
	out := site.NewStream(req.W)
	c.hub.update(func() { c.hub.viewers++ })
	defer c.hub.update(func() { c.hub.viewers-- })
	end := time.NewTimer(longest) // then the browser reconnects, and the viewer is checked again
	defer end.Stop()
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	text := "retry: 500\n\n"
	for n := 0; ; n++ {
		changed := c.hub.wait()
		if err := out.Send(text); err != nil {
			return nil //nolint:nilerr // the client has disconnected, or reconnects
		}
		select {
		case <-req.Ctx().Done():
			return nil
		case <-end.C:
			return nil
		case <-alive.C:
			text = ": still here\n\n"
			continue
		case <-changed:
		}
		if c.hub.over() {
			return nil
		}
		select { // changes in quick succession are one event
		case <-req.Ctx().Done():
			return nil
		case <-time.After(burst):
		}
		text = "event: changed\ndata: " + strconv.Itoa(n) + "\n\n"
	}
}

// topology is the topology in force; nil if there is none.
func (c *Console) topology() *topology.Topology {
	if c.cfg.Topology == nil {
		return nil
	}
	return c.cfg.Topology()
}

// dashboard is the name of this service in a topology; empty if it has none.
func (c *Console) dashboard(topo *topology.Topology) string {
	for _, w := range topo.OfKind(topology.KindDashboard) {
		return w.Name
	}
	return ""
}
