// Package exercise is the vocabulary of exercises on the wire: scenarios, the orders that an instructor gives on the
// console, their results, and the feed of events. The learning system stores them; the lab's conductor carries them
// out.
package exercise

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"example.org/security-training/services/topology"
)

// RouteReset deletes the records of exercises and their casts in a service. Each service that has such records serves
// it, with its own order.
const RouteReset topology.Route = "POST /v1/reset"

// Exercise is the state of a scenario that is being played. POST /v1/exercises takes one, GET lists them.
type Exercise struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Brief      string   `json:"brief"`
	Difficulty int      `json:"difficulty"` // 1 to 5
	Minutes    int      `json:"minutes"`
	Attack     []string `json:"attack"` // MITRE ATT&CK techniques
	State      State    `json:"state"`
	Steps      []Step   `json:"steps"`
	// the ids of the people who were created for it; they are deleted with it
	Cast    []string  `json:"cast,omitempty"`
	Begun   time.Time `json:"begun,omitzero"`   // wall clock; set by the learning system
	Changed time.Time `json:"changed,omitzero"` // wall clock; set by the learning system
}

// State is the state of an exercise.
type State string

// States of an exercise.
const (
	Planned State = "planned"
	Playing State = "playing"
	Paused  State = "paused"  // before its next step
	Passed  State = "passed"  // all expectations were met
	Failed  State = "failed"  // it ended, and not all expectations were met
	Stopped State = "stopped" // unfinished
)

// On says whether an exercise is being played.
func (s State) On() bool { return s == Playing || s == Paused }

// Step is one line of an exercise's timeline or of its expectations.
type Step struct {
	At      string `json:"at"` // as in the scenario: "17h14m"
	Who     string `json:"who"`
	What    string `json:"what"`
	Outcome string `json:"outcome"` // empty at first; then ok, failed, or other text
}

var (
	idPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)
	states    = []State{Planned, Playing, Paused, Passed, Failed, Stopped}
)

// Validate returns all faults of an exercise, nil if there is none.
func (e Exercise) Validate() error {
	var faults []error
	text := func(name, s string, longest int) { faults = append(faults, text(name, s, longest)) }
	if !idPattern.MatchString(e.ID) {
		faults = append(faults, fmt.Errorf("id %q: want letters, digits, dots and dashes", e.ID))
	}
	if e.Title == "" {
		faults = append(faults, errors.New("title: missing"))
	}
	text("title", e.Title, 300)
	text("brief", e.Brief, 20_000)
	if e.Difficulty < 0 || e.Difficulty > 5 {
		faults = append(faults, fmt.Errorf("difficulty %d: outside 0 to 5", e.Difficulty))
	}
	if e.Minutes < 0 || e.Minutes > 10_000 {
		faults = append(faults, fmt.Errorf("minutes %d: outside 0 to 10000", e.Minutes))
	}
	if !slices.Contains(states, e.State) {
		faults = append(faults, fmt.Errorf("state %q: want one of %v", e.State, states))
	}
	if len(e.Attack) > 50 || len(e.Steps) > 2000 || len(e.Cast) > 100 {
		faults = append(faults, errors.New("attack, steps, cast: too many"))
	}
	for i, who := range e.Cast {
		if !idPattern.MatchString(who) {
			faults = append(faults, fmt.Errorf("cast[%d] %q: want a person's id", i, who))
		}
	}
	for i, a := range e.Attack {
		text(fmt.Sprintf("attack[%d]", i), a, 40)
	}
	for i, s := range e.Steps {
		text(fmt.Sprintf("steps[%d].at", i), s.At, 64)
		text(fmt.Sprintf("steps[%d].who", i), s.Who, 200)
		text(fmt.Sprintf("steps[%d].what", i), s.What, 2000)
		text(fmt.Sprintf("steps[%d].outcome", i), s.Outcome, 500)
	}
	return errors.Join(faults...)
}

// text checks a text of at most longest bytes. U+0000 is not allowed, since jsonb cannot store it.
func text(name, s string, longest int) error {
	if len(s) > longest || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%s: want at most %d bytes of UTF-8 text", name, longest)
	}
	return nil
}

// ValidID says whether s can name an exercise, a scenario or a phishing template: letters, digits, dots and dashes, 100
// at most.
func ValidID(s string) bool { return idPattern.MatchString(s) }

// Kinds of orders.
const (
	OrderPlay   = "play"   // Scenario; with Stepwise, each step waits for OrderStep
	OrderStep   = "step"   // the next step
	OrderPause  = "pause"  // before the next step
	OrderResume = "resume" // without waiting any more
	OrderStop   = "stop"   // the exercise ends unfinished
	OrderReset  = "reset"  // Exercise, or all: deletes the records that its runs created; learners' records stay
	// deletes learners' records after they were written to a file, and returns to the seeded state
	OrderForget   = "forget"
	OrderTry      = "try"      // a call of Route of Callee as Caller
	OrderRotate   = "rotate"   // a new SVID for Workload
	OrderWithdraw = "withdraw" // Workload's identity, until OrderReturn
	OrderReturn   = "return"   // gives Workload its identity back
	OrderRevoke   = "revoke"   // Caller from Route of Callee, until OrderRestore
	OrderRestore  = "restore"  // lets Caller call Route of Callee again
	OrderStory    = "story"    // of Event, from the vendor to the lesson
	OrderVerify   = "verify"   // every chain of the audit
)

// Order is an instructor's order. Which fields are set depends on its kind.
type Order struct {
	Number   int64          `json:"number"`
	Kind     string         `json:"kind"`
	Scenario string         `json:"scenario,omitempty"`
	Exercise string         `json:"exercise,omitempty"` // its id
	Stepwise bool           `json:"stepwise,omitempty"`
	Workload string         `json:"workload,omitempty"`
	Caller   string         `json:"caller,omitempty"`
	Callee   string         `json:"callee,omitempty"`
	Route    topology.Route `json:"route,omitempty"`
	Event    string         `json:"event,omitempty"`
}

// Orders is the answer of GET /v1/orders.
type Orders struct {
	Orders  []Order `json:"orders"`  // not taken yet, the oldest first
	Watched bool    `json:"watched"` // the console is open, so the feed should be sent at once
}

// OrderWaiting is the state of an order that was not taken yet. Later its state is that of the last report.
const OrderWaiting = "waiting"

// States of a report. An order is taken by one conductor, and then done or failed.
const (
	ReportTaken  = "taken"
	ReportDone   = "done"
	ReportFailed = "failed"
)

// Report is the body of POST /v1/orders/{order}.
type Report struct {
	State  string  `json:"state"`          // ReportTaken, ReportDone or ReportFailed
	Note   string  `json:"note,omitempty"` // for people
	Result *Result `json:"result,omitempty"`
}

// Result is the result of an order that asks for something.
type Result struct {
	Tried  *Tried       `json:"tried,omitempty"`
	Story  []StoryLine  `json:"story,omitempty"`
	Chains []ChainState `json:"chains,omitempty"`
}

// Tried is one call as both sides saw it.
type Tried struct {
	Expected topology.Outcome `json:"expected"`          // by the original policy
	Running  topology.Outcome `json:"running,omitempty"` // by the current policy, if that differs
	Measured topology.Outcome `json:"measured"`
	Status   int              `json:"status,omitempty"` // of the answer, 0 if there was none
	// the SPIFFE ID and serial number of the caller's certificate, if any
	Shown  string `json:"shown,omitempty"`
	Saw    string `json:"saw"`              // what the caller saw
	Reason string `json:"reason,omitempty"` // the code in the refusing side's audit
	Wrote  string `json:"wrote,omitempty"`  // the rest of that entry
}

// StoryLine is one audit entry about an event.
type StoryLine struct {
	At     time.Time `json:"at"`
	Where  string    `json:"where"` // the chain's owner
	What   string    `json:"what"`
	Person string    `json:"person,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Hash   string    `json:"hash,omitempty"`
}

// ChainState is the result of verifying one chain.
type ChainState struct {
	Name        string `json:"name"`
	Entries     int    `json:"entries"`
	Checkpoints int    `json:"checkpoints"`
}

// Scenario is an exercise that the conductor can play.
type Scenario struct {
	Name       string   `json:"name"`
	Title      string   `json:"title"`
	Brief      string   `json:"brief"`
	Difficulty int      `json:"difficulty"`
	Minutes    int      `json:"minutes"`
	Attack     []string `json:"attack"`
	Steps      int      `json:"steps"`
	Hints      []Hint   `json:"hints"`
	Debrief    string   `json:"debrief"`
}

// Hint costs points of an exercise's 100.
type Hint struct {
	Cost int    `json:"cost"`
	Text string `json:"text"`
}

// Scenarios is the body of PUT /v1/scenarios.
type Scenarios struct {
	Scenarios []Scenario `json:"scenarios"`
	Strangers []Stranger `json:"strangers"` // unlisted callers for OrderTry
	Fresh     bool       `json:"fresh"`     // this conductor has just started: orders taken by another one have failed
}

// Stranger is a caller that the topology does not list.
type Stranger struct {
	Name string `json:"name"`
	What string `json:"what"` // for people
}

// Feed is the body of POST /v1/feed: events of the lab and the state of identities. Identities and Revoked replace
// earlier ones unless they are null.
type Feed struct {
	Lines      []FeedLine `json:"lines,omitempty"`
	Identities []Identity `json:"identities"`
	Revoked    []Revoked  `json:"revoked"`
}

// FeedMost is the maximum number of lines of a feed.
const FeedMost = 200

// longestWhat bounds FeedLine.What, in bytes.
const longestWhat = 500

var feedKinds = []string{"event", "score", "lesson", "refusal", "order", "sign-in"}

// Validate returns all faults of a feed's lines, nil if there is none.
func (f Feed) Validate() error {
	var faults []error
	if len(f.Lines) > FeedMost {
		return fmt.Errorf("%d lines: want %d at most", len(f.Lines), FeedMost)
	}
	for i, l := range f.Lines {
		if !slices.Contains(feedKinds, l.Kind) {
			faults = append(faults, fmt.Errorf("lines[%d].kind %q: want one of %v", i, l.Kind, feedKinds))
		}
		faults = append(faults,
			text(fmt.Sprintf("lines[%d].person", i), l.Person, 200),
			text(fmt.Sprintf("lines[%d].what", i), l.What, longestWhat),
			text(fmt.Sprintf("lines[%d].event", i), l.Event, 500),
			text(fmt.Sprintf("lines[%d].level", i), l.Level, 20))
	}
	return errors.Join(faults...)
}

// Short cuts s to the length of FeedLine.What.
func Short(s string) string {
	if len(s) <= longestWhat {
		return s
	}
	return strings.ToValidUTF8(s[:longestWhat-len("…")], "") + "…"
}

// FeedLine is one event of the lab.
type FeedLine struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"` // event, score, lesson, refusal, order, sign-in
	Person string    `json:"person,omitempty"`
	What   string    `json:"what"` // see Short
	Event  string    `json:"event,omitempty"`
	Level  string    `json:"level,omitempty"`
}

// Identity is the state of a workload's identity.
type Identity struct {
	Workload string    `json:"workload"`
	SPIFFEID string    `json:"spiffe_id"`
	State    string    `json:"state"` // ready, starting, restarting …
	Serial   string    `json:"serial,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
}

// Revoked is a caller that was removed from a route's list while the lab runs.
type Revoked struct {
	Caller string         `json:"caller"`
	Callee string         `json:"callee"`
	Route  topology.Route `json:"route"`
}
