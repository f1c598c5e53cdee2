package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/topology"
)

// formPages are the paths that a form may redirect to.
var formPages = []string{
	"/console",
	"/console/identities",
	"/console/matrix",
	"/console/records",
	"/console/story",
	"/audit",
}

// back redirects to the page that the form names, or to otherwise if it names none of formPages.
func back(req *site.Request, otherwise string) error {
	to := req.R.PostForm.Get("back")
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || !slices.Contains(formPages, u.Path) {
		to = otherwise
	}
	return req.Redirect(to)
}

func badOrder(format string, args ...any) error {
	return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_order", format, args...)
}

// DoOrder places an order of an instructor, of any kind but those about identities. 422 for an invalid order.
func (c *Console) DoOrder(req *site.Request) error {
	o, home, err := c.readOrder(req.Ctx(), req.R.PostForm)
	if err != nil {
		return err
	}
	if _, err := c.placeOrder(req.Ctx(), req.Viewer.Principal, o); err != nil {
		return err
	}
	return back(req, home)
}

// readOrder reads an order from a form, and the path of the page that it belongs to.
func (c *Console) readOrder(ctx context.Context, f url.Values) (o exercise.Order, home string, err error) {
	o.Kind, home = f.Get("kind"), "/console"
	switch o.Kind {
	case exercise.OrderPlay:
		o.Scenario, o.Stepwise = f.Get("scenario"), f.Get("stepwise") == "yes"
		all, err := c.store.scenarios(ctx)
		if err != nil {
			return o, home, err
		}
		if !slices.ContainsFunc(all, func(s exercise.Scenario) bool { return s.Name == o.Scenario }) {
			return o, home, badOrder("There is no scenario %q.", o.Scenario)
		}
	case exercise.OrderStep, exercise.OrderPause, exercise.OrderResume, exercise.OrderStop, exercise.OrderVerify:
	case exercise.OrderReset:
		if o.Exercise = f.Get("exercise"); !exercise.ValidID(o.Exercise) {
			return o, home, badOrder("Say which exercise is to be reset.")
		}
	case exercise.OrderForget:
		home = "/console/records"
		if !strings.EqualFold(strings.TrimSpace(f.Get("word")), deleteWord) {
			return o, home, badOrder("Nothing was deleted. Type “%s” to confirm that learners’ records are to be deleted.",
				deleteWord)
		}
	case exercise.OrderTry, exercise.OrderRevoke, exercise.OrderRestore:
		parts := strings.SplitN(f.Get("cell"), "|", 3)
		if len(parts) != 3 {
			return o, home, badOrder("This is no call that can be tried.")
		}
		o.Caller, o.Callee, o.Route = parts[0], parts[1], topology.Route(parts[2])
		home = "/console/matrix?" + url.Values{"callee": {o.Callee}}.Encode()
		return o, home, c.checkCell(o)
	case exercise.OrderStory:
		home = "/console/story?" + url.Values{"event": {f.Get("event")}}.Encode()
		o.Event = strings.TrimSpace(f.Get("event"))
		if !eventPattern.MatchString(o.Event) {
			return o, home, badOrder("%q is not the id of an event: want a source, a colon and the vendor's id.", o.Event)
		}
	default:
		return o, home, badOrder("The console cannot do %q.", o.Kind)
	}
	return o, home, nil
}

// checkCell checks an order about one call: the callee serves the route, the caller exists, and the console stays
// reachable for the conductor.
func (c *Console) checkCell(o exercise.Order) error {
	topo := c.topology()
	if topo == nil {
		return badOrder("The lab has no topology.")
	}
	callee, ok := topo.Workload(o.Callee)
	if !ok {
		return badOrder("There is no workload %q.", o.Callee)
	}
	if _, ok := callee.Serves[o.Route]; !ok {
		return badOrder("%s does not serve %q.", o.Callee, o.Route)
	}
	_, listed := topo.Workload(o.Caller)
	c.hub.mu.Lock()
	stranger := slices.ContainsFunc(c.hub.strangers, func(s exercise.Stranger) bool { return s.Name == o.Caller })
	c.hub.mu.Unlock()
	if !listed && (!stranger || o.Kind != exercise.OrderTry) {
		return badOrder("There is no caller %q.", o.Caller)
	}
	if o.Kind == exercise.OrderRevoke && o.Callee == c.dashboard(topo) {
		return badOrder("The conductor needs the routes of this service: without them the console could not undo the order.")
	}
	return nil
}

// placeOrder stores an order with its audit row, wakes the conductor, and returns the order's number.
func (c *Console) placeOrder(ctx context.Context, by site.Principal, o exercise.Order) (int64, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, fmt.Errorf("encode order: %w", err)
	}
	err = c.store.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		err := tx.QueryRow(ctx, `INSERT INTO training.console_order (kind, body, role) VALUES ($1, $2, $3)
			RETURNING number`, o.Kind, string(body), by.Role).Scan(&o.Number)
		if err != nil {
			return nil, fmt.Errorf("store order: %w", err)
		}
		return []audited.Row{audited.Note("order", "", o.Event, struct {
			exercise.Order
			By site.Principal `json:"by"`
		}{o, by})}, nil
	})
	if err != nil {
		return 0, err
	}
	c.hub.update(func() {})
	return o.Number, nil
}

// placed is an order with its state and result.
type placed struct {
	exercise.Order
	Role    string
	State   string
	Note    string
	Result  *exercise.Result
	Made    time.Time
	Changed time.Time
}

// asked describes an order in words.
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

var eventPattern = regexp.MustCompile(`^[a-z]+:[\x21-\x7e]{1,250}$`)
