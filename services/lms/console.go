package lms

import (
	"cmp"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/topology"
)

// consoleFrame is what every page of the console has.
type consoleFrame struct {
	Here      string
	Projector bool
	Listening bool // a conductor fetches orders
	Admin     bool
	Again     string // the page's own address: where there is no script, a link looks again
}

func (f consoleFrame) frame() consoleFrame { return f }

// consolePage is a model of one of the console's pages.
type consolePage interface{ frame() consoleFrame }

// consoleBar is what stands above each of them.
type consoleBar struct {
	Title string
	At    consoleFrame
}

// consoleWords are the functions that the console's templates know.
func consoleWords() template.FuncMap {
	return template.FuncMap{
		"asked":      asked,
		"consolebar": func(title string, at consolePage) consoleBar { return consoleBar{title, at.frame()} },
		"parts":      auditlog.FactsOf,
	}
}

func (l *LMS) consoleFrame(v *site.Request, here string) consoleFrame {
	l.console.mu.Lock()
	defer l.console.mu.Unlock()
	now := l.cfg.Now()
	if l.console.viewers == 0 && now.Sub(l.console.looked) > 10*time.Second && !l.console.ended {
		close(l.console.changed) // the conductor is to know that somebody looks
		l.console.changed = make(chan struct{})
	}
	l.console.looked = now
	return consoleFrame{
		Here: here, Projector: v.R.URL.Query().Get("view") == "projector", Admin: v.Viewer.Admin(), Again: v.R.URL.RequestURI(),
		Listening: !l.console.asked.IsZero() && now.Sub(l.console.asked) < 40*time.Second,
	}
}

type consoleView struct {
	consoleFrame
	Scenarios []exercise.Scenario
	Run       *runView
	Busy      bool // an exercise is on
	Feed      []feedRow
	Stuck     []stuckRow
	Orders    []placed
}

// runView is the exercise that is on, or the latest.
type runView struct {
	exerciseRow
	Scenario string
	Points   int
	Hints    []hintRow
	Debrief  string // once it is over
}

type hintRow struct {
	Number int
	Cost   int
	Text   string // empty until it is given
}

type feedRow struct {
	exercise.FeedLine
	Icon string
}

type stuckRow struct {
	stuck
	For time.Duration
}

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

func (l *LMS) showConsole(v *site.Request) error {
	m := consoleView{consoleFrame: l.consoleFrame(v, "/console")}
	err := l.recall(v.Ctx())
	if err != nil {
		return err
	}
	if m.Scenarios, err = l.store.scenarios(v.Ctx()); err != nil {
		return err
	}
	exercises, err := l.store.exercises(v.Ctx())
	if err != nil {
		return err
	}
	if len(exercises) > 0 {
		if m.Run, err = l.run(v, exercises[0], m.Scenarios); err != nil {
			return err
		}
		m.Busy = m.Run.Live
	}
	if m.Orders, err = l.store.orders(v.Ctx(), 6, actKinds...); err != nil {
		return err
	}
	open, err := l.store.stuck(v.Ctx(), 12)
	if err != nil {
		return err
	}
	for _, s := range open {
		m.Stuck = append(m.Stuck, stuckRow{s, l.cfg.Now().Sub(s.Since)})
	}
	m.Feed = l.feedRows(40)
	return l.site.Render(v, "console", "Console", "/console", m)
}

func (l *LMS) feedRows(most int) []feedRow {
	l.console.mu.Lock()
	lines := slices.Clone(l.console.feed)
	l.console.mu.Unlock()
	var rows []feedRow
	for _, line := range slices.Backward(lines) {
		icon := map[string]string{"event": "pending", "score": "risk", "lesson": "training", "sign-in": "team"}[line.Kind]
		rows = append(rows, feedRow{line, cmp.Or(icon, "audit")})
		if len(rows) == most {
			break
		}
	}
	return rows
}

func (l *LMS) run(v *site.Request, e exercise.Exercise, scenarios []exercise.Scenario) (*runView, error) {
	r := &runView{exerciseRow: exerciseRow{Exercise: e, Live: e.State.On()}, Points: 100}
	for _, s := range e.Steps {
		step := stepRow{Step: s, Mark: markOf(s.Outcome)}
		r.Done++
		if strings.HasPrefix(s.Outcome, "failed") {
			step.Mark = "failed"
			r.Failed++
		}
		r.Steps = append(r.Steps, step)
	}
	if i := strings.LastIndexByte(e.ID, '-'); i > 0 {
		r.Scenario = e.ID[:i]
	}
	i := slices.IndexFunc(scenarios, func(s exercise.Scenario) bool { return s.Name == r.Scenario })
	if i < 0 {
		return r, nil
	}
	given, err := l.store.hintsGiven(v.Ctx(), e.ID)
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

// consolePages are where a form may lead back to.
var consolePages = []string{
	"/console",
	"/console/identities",
	"/console/matrix",
	"/console/records",
	"/console/story",
	"/audit",
}

// back leads to the page that a form came from.
func back(v *site.Request, otherwise string) error {
	to := v.R.PostForm.Get("back")
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || !slices.Contains(consolePages, u.Path) {
		to = otherwise
	}
	return v.Redirect(to)
}

func badOrder(format string, args ...any) error {
	return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_order", format, args...)
}

// doOrder takes what an instructor asks for: everything but identities.
func (l *LMS) doOrder(v *site.Request) error {
	f := v.R.PostForm
	o := exercise.Order{Kind: f.Get("kind")}
	home := "/console"
	switch o.Kind {
	case exercise.OrderPlay:
		o.Scenario, o.Stepwise = f.Get("scenario"), f.Get("stepwise") == "yes"
		all, err := l.store.scenarios(v.Ctx())
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(s exercise.Scenario) bool { return s.Name == o.Scenario }) {
			return badOrder("There is no scenario %q.", o.Scenario)
		}
	case exercise.OrderStep, exercise.OrderPause, exercise.OrderResume, exercise.OrderStop, exercise.OrderVerify:
	case exercise.OrderReset:
		if o.Exercise = f.Get("exercise"); !exercise.ValidID(o.Exercise) {
			return badOrder("Say which exercise is to be reset.")
		}
	case exercise.OrderForget:
		home = "/console/records"
		if !strings.EqualFold(strings.TrimSpace(f.Get("word")), deleteWord) {
			return badOrder("Nothing was deleted. Type “%s” to confirm that learners’ records are to be deleted.", deleteWord)
		}
	case exercise.OrderTry, exercise.OrderRevoke, exercise.OrderRestore:
		home = "/console/matrix"
		parts := strings.SplitN(f.Get("cell"), "|", 3)
		if len(parts) != 3 {
			return badOrder("This is no call that can be tried.")
		}
		o.Caller, o.Callee, o.Route = parts[0], parts[1], topology.Route(parts[2])
		if err := l.checkCell(o); err != nil {
			return err
		}
		home += "?" + url.Values{"callee": {o.Callee}}.Encode()
	case exercise.OrderStory:
		home = "/console/story?" + url.Values{"event": {f.Get("event")}}.Encode()
		o.Event = strings.TrimSpace(f.Get("event"))
		if !eventPattern.MatchString(o.Event) {
			return badOrder("%q is not the id of an event: want a source, a colon and the vendor's id.", o.Event)
		}
	default:
		return badOrder("The console cannot do %q.", o.Kind)
	}
	if _, err := l.placeOrder(v.Ctx(), v.Viewer.Principal, o); err != nil {
		return err
	}
	return back(v, home)
}

func (l *LMS) checkCell(o exercise.Order) error {
	topo := l.topology()
	if topo == nil {
		return badOrder("There is no topology to look it up in.")
	}
	callee, ok := topo.Workload(o.Callee)
	if !ok {
		return badOrder("There is no workload %q.", o.Callee)
	}
	if _, ok := callee.Serves[o.Route]; !ok {
		return badOrder("%s does not serve %q.", o.Callee, o.Route)
	}
	_, listed := topo.Workload(o.Caller)
	l.console.mu.Lock()
	stranger := slices.ContainsFunc(l.console.strangers, func(s exercise.Stranger) bool { return s.Name == o.Caller })
	l.console.mu.Unlock()
	if !listed && (!stranger || o.Kind != exercise.OrderTry) {
		return badOrder("There is no caller %q.", o.Caller)
	}
	if o.Kind == exercise.OrderRevoke && o.Callee == l.dashboard(topo) {
		return badOrder("Whoever conducts the lab comes in by this route: the console would shut itself out.")
	}
	return nil
}

// dashboard is this service's own name.
func (l *LMS) dashboard(topo *topology.Topology) string {
	for _, w := range topo.OfKind(topology.KindDashboard) {
		return w.Name
	}
	return ""
}

func (l *LMS) topology() *topology.Topology {
	if l.cfg.Topology == nil {
		return nil
	}
	return l.cfg.Topology()
}

// doIdentity takes orders about identities, which only an admin may give.
func (l *LMS) doIdentity(v *site.Request) error {
	o := exercise.Order{Kind: v.R.PostForm.Get("kind"), Workload: v.R.PostForm.Get("workload")}
	if !slices.Contains([]string{exercise.OrderRotate, exercise.OrderWithdraw, exercise.OrderReturn}, o.Kind) {
		return badOrder("The console cannot do %q to an identity.", o.Kind)
	}
	topo := l.topology()
	if topo == nil {
		return badOrder("There is no topology to look it up in.")
	}
	w, ok := topo.Workload(o.Workload)
	if !ok || w.Kind == topology.KindOperator {
		return badOrder("There is no workload %q.", o.Workload)
	}
	if o.Kind == exercise.OrderWithdraw && !withdrawable(w) {
		return badOrder("Without the identity of %s this page could not give it back. Use the command line for that.", o.Workload)
	}
	if _, err := l.placeOrder(v.Ctx(), v.Viewer.Principal, o); err != nil {
		return err
	}
	return back(v, "/console/identities")
}

func withdrawable(w topology.Workload) bool {
	return w.Kind != topology.KindDashboard && w.Kind != topology.KindDatabase
}

func (l *LMS) doHint(v *site.Request) error {
	id := v.R.PostForm.Get("exercise")
	n, err := strconv.Atoi(v.R.PostForm.Get("number"))
	if err != nil {
		return badOrder("Which hint?")
	}
	all, err := l.store.scenarios(v.Ctx())
	if err != nil {
		return err
	}
	exercises, err := l.store.exercises(v.Ctx())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(exercises, func(e exercise.Exercise) bool { return e.ID == id })
	if i < 0 {
		return site.NotFound()
	}
	for _, s := range all {
		if j := strings.LastIndexByte(id, '-'); j > 0 && s.Name == id[:j] && n >= 1 && n <= len(s.Hints) {
			if err := l.store.giveHint(v.Ctx(), id, n, s.Hints[n-1], v.Viewer.Principal); err != nil {
				return err
			}
			return back(v, "/console")
		}
	}
	return site.NotFound()
}

// showConsoleEvents says that something has changed, as often as it does. What has, the page itself tells.
func (l *LMS) showConsoleEvents(v *site.Request) error {
	const longest, settle = 5 * time.Minute, 120 * time.Millisecond
	out := site.NewStream(v.W)
	l.console.update(func() { l.console.viewers++ })
	defer l.console.update(func() { l.console.viewers-- })
	end := time.NewTimer(longest) // then the browser asks again, and who it is for is looked up again
	defer end.Stop()
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	text := "retry: 500\n\n"
	for n := 0; ; n++ {
		changed := l.console.wait()
		if err := out.Send(text); err != nil {
			return nil //nolint:nilerr // the reader has gone, or asks again
		}
		select {
		case <-v.Ctx().Done():
			return nil
		case <-end.C:
			return nil
		case <-alive.C:
			text = ": still here\n\n"
			continue
		case <-changed:
		}
		if l.console.over() {
			return nil
		}
		select { // a burst is one change
		case <-v.Ctx().Done():
			return nil
		case <-time.After(settle):
		}
		text = "event: changed\ndata: " + strconv.Itoa(n) + "\n\n"
	}
}

type identitiesView struct {
	consoleFrame
	Rows   []identityRow
	Orders []placed
}

type identityRow struct {
	exercise.Identity
	Kind         string
	Withdrawn    bool
	Withdrawable bool
}

func (l *LMS) showIdentities(v *site.Request) error {
	m := identitiesView{consoleFrame: l.consoleFrame(v, "/console/identities")}
	l.console.mu.Lock()
	known := slices.Clone(l.console.identities)
	l.console.mu.Unlock()
	if topo := l.topology(); topo != nil {
		for _, id := range known {
			w, _ := topo.Workload(id.Workload)
			m.Rows = append(m.Rows, identityRow{Identity: id, Kind: w.Kind, Withdrawn: id.Serial == "", Withdrawable: withdrawable(w)})
		}
	}
	var err error
	if m.Orders, err = l.store.orders(v.Ctx(), 6, exercise.OrderRotate, exercise.OrderWithdraw, exercise.OrderReturn); err != nil {
		return err
	}
	return l.site.Render(v, "console_identities", "Identities", "/console", m)
}

type matrixView struct {
	consoleFrame
	Callee  string
	Callees []site.Choice
	Routes  []matrixRoute
	Rows    []matrixRow
	Latest  []placed // calls that were tried, the newest first
	Revoked []revokedRow
}

type matrixRoute struct {
	Route   topology.Route
	Callers []callerRow // who is on the list by name or kind, each as a workload
}

type callerRow struct{ Name, Cell string }

type revokedRow struct {
	exercise.Revoked
	Cell string
}

type matrixRow struct {
	Caller string
	What   string
	Cells  []matrixCell
}

type matrixCell struct {
	Cell     string // what the form sends
	Expected topology.Outcome
	Measured topology.Outcome // empty: not tried yet
	Wrong    bool
}

func (l *LMS) showMatrix(v *site.Request) error {
	m := matrixView{consoleFrame: l.consoleFrame(v, "/console/matrix")}
	topo := l.topology()
	if topo == nil {
		return l.site.Render(v, "console_matrix", "Who may call what", "/console", m)
	}
	m.Callee = v.R.URL.Query().Get("callee")
	if w, ok := topo.Workload(m.Callee); !ok || len(w.Serves) == 0 {
		m.Callee = ""
		for _, w := range topo.OfKind(topology.KindGateway) {
			m.Callee = w.Name
		}
	}
	for _, w := range topo.Workloads {
		if len(w.Serves) > 0 {
			m.Callees = append(
				m.Callees,
				site.Choice{
					Value:  "/console/matrix?" + url.Values{"callee": {w.Name}}.Encode(),
					Name:   w.Name,
					Chosen: w.Name == m.Callee,
				},
			)
		}
	}
	tries, err := l.store.orders(v.Ctx(), 400, exercise.OrderTry)
	if err != nil {
		return err
	}
	measured := map[string]*exercise.Tried{}
	for _, t := range slices.Backward(tries) {
		if t.Result != nil && t.Result.Tried != nil {
			measured[cellOf(t.Caller, t.Callee, t.Route)] = t.Result.Tried
		}
	}
	m.Latest = tries[:min(5, len(tries))]
	callee, _ := topo.Workload(m.Callee)
	routes := callee.Routes()
	for _, route := range routes {
		r := matrixRoute{Route: route}
		for _, w := range topo.Workloads {
			if callee.Serves[route].Admits(w) {
				r.Callers = append(r.Callers, callerRow{w.Name, cellOf(w.Name, m.Callee, route)})
			}
		}
		m.Routes = append(m.Routes, r)
	}
	row := func(caller, what string) {
		line := matrixRow{Caller: caller, What: what}
		for _, route := range routes {
			c := matrixCell{Cell: cellOf(caller, m.Callee, route), Expected: topo.Decide(caller, m.Callee, route)}
			if t := measured[c.Cell]; t != nil {
				c.Measured = t.Measured
				c.Expected, c.Wrong = t.Expected, t.Measured != t.Expected
			}
			line.Cells = append(line.Cells, c)
		}
		m.Rows = append(m.Rows, line)
	}
	for _, w := range topo.Workloads {
		if w.Name != m.Callee {
			row(w.Name, w.Kind)
		}
	}
	l.console.mu.Lock()
	strangers, revoked := slices.Clone(l.console.strangers), slices.Clone(l.console.revoked)
	l.console.mu.Unlock()
	for _, s := range strangers {
		row(s.Name, s.What)
	}
	for _, r := range revoked {
		m.Revoked = append(m.Revoked, revokedRow{r, cellOf(r.Caller, r.Callee, r.Route)})
	}
	return l.site.Render(v, "console_matrix", "Who may call what", "/console", m)
}

func cellOf(caller, callee string, route topology.Route) string {
	return caller + "|" + callee + "|" + string(route)
}

type storyView struct {
	consoleFrame
	Event   string
	Order   *placed
	Waiting bool
	Verify  *placed
	Recent  []string
}

func (l *LMS) showStory(v *site.Request) error {
	m := storyView{
		consoleFrame: l.consoleFrame(v, "/console/story"),
		Event:        strings.TrimSpace(v.R.URL.Query().Get("event")),
	}
	if err := l.recall(v.Ctx()); err != nil {
		return err
	}
	stories, err := l.store.orders(v.Ctx(), 100, exercise.OrderStory)
	if err != nil {
		return err
	}
	for i, s := range stories {
		if s.Event == m.Event && m.Event != "" {
			m.Order = &stories[i]
			m.Waiting = s.State == exercise.OrderWaiting || s.State == exercise.ReportTaken
			break
		}
	}
	verified, err := l.store.orders(v.Ctx(), 1, exercise.OrderVerify)
	if err != nil {
		return err
	}
	if len(verified) > 0 {
		m.Verify = &verified[0]
	}
	ids := map[string]bool{}
	for _, f := range l.feedRows(feedKept) {
		if f.Event != "" && len(ids) < 12 {
			ids[f.Event] = true
		}
	}
	m.Recent = slices.Sorted(maps.Keys(ids))
	return l.site.Render(v, "console_story", "Follow an event", "/console", m)
}

// asked is an order in words.
func asked(p placed) string {
	o := p.Order
	switch o.Kind {
	case exercise.OrderPlay:
		if o.Stepwise {
			return "Play " + o.Scenario + " step by step"
		}
		return "Play " + o.Scenario
	case exercise.OrderReset:
		if o.Exercise != "" {
			return "Reset " + o.Exercise
		}
		return "Reset all exercises"
	case exercise.OrderForget:
		return "Delete learners’ records"
	case exercise.OrderRotate, exercise.OrderWithdraw:
		return words.Sentence(o.Kind) + " the identity of " + o.Workload
	case exercise.OrderReturn:
		return "Give " + o.Workload + " its identity back"
	case exercise.OrderTry:
		return o.Caller + " → " + o.Callee + ": " + string(o.Route)
	case exercise.OrderRevoke:
		return "Strike " + o.Caller + " off " + string(o.Route) + " of " + o.Callee
	case exercise.OrderRestore:
		return "Let " + o.Caller + " call " + string(o.Route) + " of " + o.Callee + " again"
	}
	return words.Sentence(o.Kind)
}
