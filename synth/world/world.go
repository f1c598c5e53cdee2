// Package world simulates the vendors, one in each process. A simulator reports people's activity as the real vendor
// does.
//
// A play says what happens: the company's history, its ordinary activity from now on, or a timeline of given acts. Each
// simulator takes the acts of its source, turns them into the vendor's payloads, signs and delivers them as the vendor
// does, and delivers again, with the same delivery id, what was not acknowledged. Okta's log is polled instead.
package world

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

// Routes of a simulator. The topology says who may call which.
const (
	RoutePlays    topology.Route = "POST /v1/plays"          // Play
	RoutePlay     topology.Route = "GET /v1/plays/{play}"    // answered by Status
	RouteStopPlay topology.Route = "DELETE /v1/plays/{play}" // stops its deliveries
)

// Kinds of plays.
const (
	History  = "history"  // the days before risk.Epoch, as fast as possible; ends when everything is acknowledged
	Live     = "live"     // ordinary days from the lab's now on, at the lab's pace, until it is deleted
	Timeline = "timeline" // Acts, each when the lab's clock reaches it; ends when all are acknowledged
)

// Play is the body of POST /v1/plays. The same play may be sent to every simulator.
type Play struct {
	ID     string        `json:"id"` // lower case letters, digits and dashes; delivery ids are derived from it
	Kind   string        `json:"kind"`
	Seed   uint64        `json:"seed,omitempty"`   // of the company: history and live, and timelines about its people
	People int           `json:"people,omitempty"` // the number of employees
	Days   int           `json:"days,omitempty"`   // history
	Mix    string        `json:"mix,omitempty"`    // published (default) or sparse
	Cast   []risk.Person `json:"cast,omitempty"`   // timeline: people from outside the company, as the roster has them
	Acts   []routine.Act `json:"acts,omitempty"`   // timeline
}

// State is the state of a play.
type State string

// States of a play.
const (
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
	Stopped State = "stopped"
)

// Status is the answer of GET /v1/plays/{play}. Counts are of vendor records: issued ones were passed to delivery,
// delivered ones were acknowledged (or fetched, from a log that is polled), duplicates were acknowledged as known
// already.
type Status struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind"`
	State      State          `json:"state"`
	Acts       int            `json:"acts"` // of this simulator's source
	Lost       int            `json:"lost"` // acts whose records the vendor has lost; not in Acts
	Issued     int            `json:"issued"`
	Delivered  int            `json:"delivered"`
	Duplicates int            `json:"duplicates"`
	Retries    int            `json:"retries"`
	Refused    map[string]int `json:"refused"`         // final refusals by code
	Error      string         `json:"error,omitempty"` // why it failed, or why a delivery is repeated
}

var idPattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// Validate reports all faults of a play at once.
func (p Play) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !idPattern.MatchString(p.ID) {
		fault("id %.80q: want lower case letters, digits and dashes", p.ID)
	}
	if !slices.Contains([]string{History, Live, Timeline}, p.Kind) {
		fault("kind %.80q: want %s, %s or %s", p.Kind, History, Live, Timeline)
	}
	if p.People < 0 || p.People > 50_000 || p.Kind != Timeline && p.People == 0 {
		fault("people %d: want 1 to 50000", p.People)
	}
	if p.Days < 0 || p.Days > 365 || p.Kind == History && p.Days == 0 {
		fault("days %d: want 1 to 365", p.Days)
	}
	if _, err := people.MixFrom(p.Mix); err != nil {
		fault("%v", err)
	}
	if p.Kind == Timeline && len(p.Acts) == 0 {
		fault("acts: a timeline needs some")
	}
	if p.Kind != Timeline && (len(p.Acts) > 0 || len(p.Cast) > 0) {
		fault("acts and cast are for timelines")
	}
	for _, c := range p.Cast {
		if err := c.Validate(); err != nil {
			fault("cast %.80q: %v", c.ID, err)
		}
	}
	for i, a := range p.Acts {
		if len(a.ID) < 8 || len(a.ID) > 64 || a.At.IsZero() || a.Verb.Source() != a.Source || a.Count < 0 || a.Count > 1000 {
			fault("act %d: want an id of 8 to 64 bytes, a time, a verb of its source and a count up to 1000", i)
		}
	}
	return errors.Join(faults...)
}

// play is a running play.
type play struct {
	Play
	stop context.CancelFunc
	over chan struct{}

	mu     sync.Mutex
	status Status
}

func (p *play) update(f func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.status)
}

func (p *play) read() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Refused = map[string]int{}
	for k, v := range p.status.Refused {
		s.Refused[k] = v
	}
	return s
}

// World is one simulated vendor.
type World struct {
	source activity.Source
	row    source.Row
	secret []byte
	send   sendFunc
	clock  func(context.Context) (risk.Clock, error)
	log    *oktaLog

	workers int           // concurrent deliveries
	first   time.Duration // pause after a failed delivery; it doubles
	longest time.Duration
	look    time.Duration // how often the lab's clock is read

	ctx   context.Context // of the process, since plays outlive the request that starts them
	group sync.WaitGroup
	mu    sync.Mutex
	plays map[string]*play
}

func newWorld(
	ctx context.Context,
	row source.Row,
	secret []byte,
	send sendFunc,
	clock func(context.Context) (risk.Clock, error),
) *World {
	return &World{
		source:  row.Source,
		row:     row,
		secret:  secret,
		send:    send,
		clock:   clock,
		log:     newOktaLog(),
		workers: 16,
		first:   20 * time.Millisecond,
		longest: 2 * time.Second,
		look:    100 * time.Millisecond,
		ctx:     ctx,
		plays:   map[string]*play{},
	}
}

// begin starts a play.
func (w *World) begin(p Play) (*play, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plays[p.ID] != nil {
		return nil, httpjson.Errorf(http.StatusConflict, "play_exists",
			"a play %q is on or was; delete it or take another id", p.ID)
	}
	if len(w.plays) >= 1000 {
		return nil, httpjson.Errorf(http.StatusTooManyRequests, "too_many_plays",
			"1000 plays are remembered; delete some").After(time.Second)
	}
	ctx, stop := context.WithCancel(w.ctx)
	on := &play{Play: p, stop: stop, over: make(chan struct{}), status: Status{ID: p.ID, Kind: p.Kind, State: Running,
		Refused: map[string]int{}}}
	w.plays[p.ID] = on
	w.group.Go(func() {
		defer close(on.over)
		defer stop()
		err := w.perform(ctx, on)
		on.update(func(s *Status) {
			switch {
			case ctx.Err() != nil:
				s.State = Stopped
			case err != nil:
				s.State, s.Error = Failed, err.Error()
			default:
				s.State = Done
			}
		})
	})
	return on, nil
}

func (w *World) find(id string) (*play, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.plays[id]; p != nil {
		return p, nil
	}
	return nil, httpjson.Errorf(http.StatusNotFound, "no_such_play", "no play %.80q", id)
}

// maxPlay is the maximum size of a play in bytes.
const maxPlay = 64 << 20

func (w *World) servePost(rw http.ResponseWriter, r *http.Request) error {
	var p Play
	if err := httpjson.Read(rw, r, maxPlay, &p); err != nil {
		return err
	}
	if err := p.Validate(); err != nil {
		return httpjson.Errorf(http.StatusBadRequest, "bad_play", "%v", err)
	}
	on, err := w.begin(p)
	if err != nil {
		return err
	}
	return httpjson.Write(rw, http.StatusAccepted, on.read())
}

func (w *World) serveGet(rw http.ResponseWriter, r *http.Request) error {
	p, err := w.find(r.PathValue("play"))
	if err != nil {
		return err
	}
	return httpjson.Write(rw, http.StatusOK, p.read())
}

// serveDelete stops and deletes a play. It answers when all its deliveries have ended.
func (w *World) serveDelete(rw http.ResponseWriter, r *http.Request) error {
	p, err := w.find(r.PathValue("play"))
	if err != nil {
		return err
	}
	p.stop()
	<-p.over
	w.mu.Lock()
	delete(w.plays, p.ID)
	w.mu.Unlock()
	return httpjson.Write(rw, http.StatusOK, p.read())
}
