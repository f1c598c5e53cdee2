package lms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/mesh"
)

// The learning system does not know what runs it. What an instructor asks for on the console becomes an order, which a
// conductor fetches over the mesh, does, and reports on.

// console is what the instructor's page shows beyond the database.
type console struct {
	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at each change
	ended      bool
	asked      time.Time // when the conductor was last here
	viewers    int
	looked     time.Time // when a page was last shown
	feed       []exercise.FeedLine
	identities []exercise.Identity
	revoked    []exercise.Revoked
	strangers  []exercise.Stranger

	begun     time.Time // this process; the feed of before is in the database
	recalling sync.Mutex
	recalled  bool
}

const feedKept = exercise.FeedMost

func newConsole() *console { return &console{changed: make(chan struct{}), begun: time.Now()} }

// wait is closed at the next change. Once the console has ended, it is closed already.
func (c *console) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *console) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// update changes the console and wakes everybody who waits.
func (c *console) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	if !c.ended {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// end lets nobody wait any more: the process drains.
func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ended = true
		close(c.changed)
	}
}

func (c *console) watched(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.viewers > 0 || now.Sub(c.looked) < 15*time.Second
}

// wrote tells the feed of rows that this service has just committed.
func (c *console) wrote(rows []store.Row) {
	var lines []exercise.FeedLine
	for _, r := range rows {
		if line, ok := lineOf(r, time.Now().UTC()); ok {
			lines = append(lines, line)
		}
	}
	c.update(func() { c.add(lines) })
}

// lineOf is a row of the audit as a line of the feed, if it is one for people.
func lineOf(r store.Row, at time.Time) (exercise.FeedLine, bool) {
	what, ok := feedWords[r.Kind]
	kind := "lesson"
	if r.Kind == "sign_in" {
		kind = "sign-in"
		var who site.Principal
		if r.Person == "" && json.Unmarshal([]byte(r.Detail), &who) == nil && who.Role != "" {
			what = "an " + who.Role + " signs in"
		}
	}
	return exercise.FeedLine{At: at, Kind: kind, Person: r.Person, What: what, Event: r.Event}, ok
}

var feedWords = map[string]string{
	"lesson.asked": "asks for a lesson", "lesson.written": "gets a lesson about these acts", "lesson.refused": "has to wait for a lesson",
	"attempt": "hands a quiz in", "completion": "completes a lesson", "sign_in": "signs in",
}

func (c *console) add(lines []exercise.FeedLine) {
	c.feed = append(c.feed, lines...)
	slices.SortStableFunc(c.feed, func(a, b exercise.FeedLine) int { return a.At.Compare(b.At) })
	if len(c.feed) > feedKept {
		c.feed = slices.Clone(c.feed[len(c.feed)-feedKept:])
	}
}

// GetOrders is GET /v1/orders?wait=20s: Orders, as soon as there is one, or somebody begins or ceases to watch, or after that
// time, half a minute at most. Asking changes nothing: an order is taken by a report that says so.
func (l *LMS) GetOrders(w http.ResponseWriter, r *http.Request) error {
	var patience time.Duration
	if text := r.URL.Query().Get("wait"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > 30*time.Second {
			return httpjson.Errorf(http.StatusBadRequest, "bad_wait", "wait %q: want a time of at most 30s", text)
		}
		patience = d
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	knew := r.URL.Query().Get("watched") == "true"
	if patience > 0 {
		l.console.mu.Lock()
		l.console.asked = l.cfg.Now()
		l.console.mu.Unlock()
	}
	for {
		changed := l.console.wait()
		orders, err := l.store.waitingOrders(r.Context())
		if err != nil {
			return err
		}
		watched := l.console.watched(l.cfg.Now())
		answer := func() error {
			return httpjson.Write(w, http.StatusOK, exercise.Orders{Orders: orders, Watched: watched})
		}
		if len(orders) > 0 || patience == 0 || watched != knew || l.console.over() {
			return answer()
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-timer.C:
			return answer()
		case <-changed:
		}
	}
}

// PostOrder is POST /v1/orders/{order}: the conductor's Report. 409 for an order that somebody else has taken, or that has
// ended; 404 for one that is not there.
func (l *LMS) PostOrder(w http.ResponseWriter, r *http.Request) error {
	var report exercise.Report
	if err := httpjson.Read(w, r, 4<<20, &report); err != nil {
		return err
	}
	n, err := strconv.ParseInt(r.PathValue("order"), 10, 64)
	if err != nil {
		return httpjson.Errorf(http.StatusNotFound, "unknown_order", "there is no order %q", r.PathValue("order"))
	}
	if !slices.Contains([]string{exercise.ReportTaken, exercise.ReportDone, exercise.ReportFailed}, report.State) {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_report", "state %q: want taken, done or failed", report.State)
	}
	if err := l.store.reportOrder(r.Context(), n, report, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	l.console.update(func() {})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// PutScenarios is PUT /v1/scenarios: what the conductor can play and try, in place of what it said before.
func (l *LMS) PutScenarios(w http.ResponseWriter, r *http.Request) error {
	var s exercise.Scenarios
	if err := httpjson.Read(w, r, 1<<20, &s); err != nil {
		return err
	}
	for i, x := range s.Scenarios {
		if !exercise.ValidID(x.Name) || x.Title == "" || len(s.Scenarios) > 200 {
			return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_scenario", "scenario %d: want a name, a title, and 200 scenarios at most", i)
		}
	}
	if err := l.store.putScenarios(r.Context(), s, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	l.console.update(func() { l.console.strangers = s.Strangers })
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// PostFeed is POST /v1/feed: what the conductor saw happen elsewhere. It is shown, and its latest lines are kept.
func (l *LMS) PostFeed(w http.ResponseWriter, r *http.Request) error {
	var f exercise.Feed
	if err := httpjson.Read(w, r, 4<<20, &f); err != nil {
		return err
	}
	if err := f.Validate(); err != nil {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_feed", "%v", err)
	}
	if err := l.store.keepFeed(r.Context(), f.Lines); err != nil {
		return err
	}
	l.console.update(func() {
		l.console.add(f.Lines)
		if f.Identities != nil {
			l.console.identities = f.Identities
		}
		if f.Revoked != nil {
			l.console.revoked = f.Revoked
		}
	})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// recall reads the feed of before this process, once.
func (l *LMS) recall(ctx context.Context) error {
	c := l.console
	c.recalling.Lock()
	defer c.recalling.Unlock()
	if c.recalled {
		return nil
	}
	lines, err := l.store.feedOf(ctx, l.auditlog.Store, c.begun)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(lines)
	c.recalled = true
	return nil
}

// placed is an order with what came of it.
type placed struct {
	exercise.Order
	Role    string
	State   string
	Note    string
	Result  *exercise.Result
	Made    time.Time
	Changed time.Time
}

var eventPattern = regexp.MustCompile(`^[a-z]+:[\x21-\x7e]{1,250}$`)

// placeOrder keeps an order and its audit row, and wakes the conductor.
func (l *LMS) placeOrder(ctx context.Context, by site.Principal, o exercise.Order) (int64, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, fmt.Errorf("encode order: %w", err)
	}
	err = l.store.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		if err := tx.QueryRow(ctx, `INSERT INTO training.console_order (kind, body, role) VALUES ($1, $2, $3) RETURNING number`, o.Kind, string(body), by.Role).Scan(&o.Number); err != nil {
			return nil, fmt.Errorf("store order: %w", err)
		}
		return []store.Row{store.Note("order", "", o.Event, struct {
			exercise.Order
			By site.Principal `json:"by"`
		}{o, by})}, nil
	})
	if err != nil {
		return 0, err
	}
	l.console.update(func() {})
	return o.Number, nil
}

func (s *records) waitingOrders(ctx context.Context) ([]exercise.Order, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT number, body FROM training.console_order WHERE state = $1 ORDER BY number LIMIT 50`,
		exercise.OrderWaiting,
	)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Order, error) {
		var o exercise.Order
		var n int64
		var body []byte
		if err := row.Scan(&n, &body); err != nil {
			return o, err
		}
		err := json.Unmarshal(body, &o)
		o.Number = n
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	if all == nil {
		all = []exercise.Order{}
	}
	return all, nil
}

// orders are the latest of some kinds, the newest first.
func (s *records) orders(ctx context.Context, limit int, kinds ...string) ([]placed, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT number, body, role, state, note, result, made, changed FROM training.console_order WHERE kind = ANY($1)
			ORDER BY number DESC LIMIT $2`,
		kinds,
		limit,
	)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (placed, error) {
		var p placed
		var n int64
		var body, result []byte
		if err := row.Scan(&n, &body, &p.Role, &p.State, &p.Note, &result, &p.Made, &p.Changed); err != nil {
			return p, err
		}
		err := json.Unmarshal(body, &p.Order)
		if err == nil && result != nil {
			err = json.Unmarshal(result, &p.Result)
		}
		p.Number = n
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	return all, nil
}

func (s *records) reportOrder(ctx context.Context, n int64, report exercise.Report, by string) error {
	var result *string
	if report.Result != nil {
		b, err := json.Marshal(report.Result)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		text := string(b)
		result = &text
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var kind, state string
		err := tx.QueryRow(ctx, `SELECT kind, state FROM training.console_order WHERE number = $1 FOR UPDATE`, n).Scan(&kind, &state)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, httpjson.Errorf(http.StatusNotFound, "unknown_order", "there is no order %d", n)
		}
		if err != nil {
			return nil, fmt.Errorf("read order: %w", err)
		}
		if report.State == exercise.ReportTaken && state != exercise.OrderWaiting || report.State != exercise.ReportTaken && state != exercise.ReportTaken {
			return nil, httpjson.Errorf(http.StatusConflict, "order_"+state, "order %d is %s already", n, state)
		}
		if _, err := tx.Exec(ctx, `UPDATE training.console_order SET state = $2, note = $3, result = $4, changed = clock_timestamp() WHERE number = $1`, n, report.State, report.Note, result); err != nil {
			return nil, fmt.Errorf("store report: %w", err)
		}
		if report.State == exercise.ReportTaken {
			return nil, nil
		}
		return []store.Row{store.Note("order."+report.State, "", "", struct {
			Number int64  `json:"number"`
			Order  string `json:"order"`
			Note   string `json:"note,omitempty"`
			By     string `json:"by"`
		}{n, kind, report.Note, by})}, nil
	})
}

func (s *records) putScenarios(ctx context.Context, told exercise.Scenarios, by string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		if _, err := tx.Exec(ctx, `DELETE FROM training.scenario`); err != nil {
			return nil, fmt.Errorf("store scenarios: %w", err)
		}
		for i, x := range told.Scenarios {
			body, err := json.Marshal(x)
			if err != nil {
				return nil, fmt.Errorf("encode scenario: %w", err)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO training.scenario (name, place, body) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET place = excluded.place, body = excluded.body`, x.Name, i, string(body)); err != nil {
				return nil, fmt.Errorf("store scenarios: %w", err)
			}
		}
		if !told.Fresh {
			return nil, nil // said again, to a service that was away
		}
		tag, err := tx.Exec(ctx, `UPDATE training.console_order SET state = $1, note = 'whoever did it was started anew', changed = clock_timestamp()
			WHERE state = $2 OR state = $3 AND made < clock_timestamp() - interval '1 minute'`, exercise.ReportFailed, exercise.ReportTaken, exercise.OrderWaiting)
		if err != nil {
			return nil, fmt.Errorf("end old orders: %w", err)
		}
		return []store.Row{store.Note("scenarios", "", "", struct {
			Scenarios int    `json:"scenarios"`
			Ended     int64  `json:"orders_ended"`
			By        string `json:"by"`
		}{len(told.Scenarios), tag.RowsAffected(), by})}, nil
	})
}

func (s *records) scenarios(ctx context.Context) ([]exercise.Scenario, error) {
	rows, err := s.Pool.Query(ctx, `SELECT body FROM training.scenario ORDER BY place`)
	if err != nil {
		return nil, fmt.Errorf("read scenarios: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Scenario, error) {
		var x exercise.Scenario
		var body []byte
		if err := row.Scan(&body); err != nil {
			return x, err
		}
		return x, json.Unmarshal(body, &x)
	})
	if err != nil {
		return nil, fmt.Errorf("read scenarios: %w", err)
	}
	return all, nil
}

// giveHint records that a hint was shown; again costs nothing.
func (s *records) giveHint(
	ctx context.Context,
	exercise string,
	number int,
	hint exercise.Hint,
	by site.Principal,
) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		tag, err := tx.Exec(ctx, `INSERT INTO training.hint (exercise, number, cost) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, exercise, number, hint.Cost)
		if err != nil {
			return nil, fmt.Errorf("store hint: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil, nil
		}
		return []store.Row{store.Note("hint", "", "", struct {
			Exercise string         `json:"exercise"`
			Number   int            `json:"number"`
			Cost     int            `json:"cost"`
			By       site.Principal `json:"by"`
		}{exercise, number, hint.Cost, by})}, nil
	})
}

// hintsGiven are the numbers of the hints of an exercise that were shown, from 1.
func (s *records) hintsGiven(ctx context.Context, exercise string) ([]int, error) {
	rows, err := s.Pool.Query(ctx, `SELECT number FROM training.hint WHERE exercise = $1`, exercise)
	if err != nil {
		return nil, fmt.Errorf("read hints: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return nil, fmt.Errorf("read hints: %w", err)
	}
	return all, nil
}

// stuck is somebody with a lesson that is not done.
type stuck struct {
	Person   string
	Module   string
	State    string
	Since    time.Time // wall clock
	Attempts int
}

func (s *records) stuck(ctx context.Context, limit int) ([]stuck, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT l.person, l.module, l.state, l.made, count(a.number) FROM training.lesson l
			LEFT JOIN training.attempt a ON a.lesson = l.id
		WHERE l.state IN ('writing', 'ready', 'refused') GROUP BY l.id ORDER BY count(a.number) DESC, l.made LIMIT $1`,
		limit,
	)
	if err != nil {
		return nil, fmt.Errorf("read open lessons: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stuck])
	if err != nil {
		return nil, fmt.Errorf("read open lessons: %w", err)
	}
	return all, nil
}
