package risk

import (
	"time"

	"example.org/security-training/services/activity"
)

// Sources are a person's R_s, each in [0, 1]: the capped risk of each group of sources.
type Sources struct {
	Git      Score `json:"git"`
	IAM      Score `json:"iam"`
	SIEM     Score `json:"siem"`
	Training Score `json:"training"` // jira's overdue security work and the LMS
}

// Contribution is one line of the sum that makes a score. All lines of an assessment sum exactly to Score.Micro().
type Contribution struct {
	Line   Line          `json:"line"`
	Event  string        `json:"event,omitempty"` // its id, on lines of kind event
	Verb   activity.Verb `json:"verb,omitempty"`
	At     time.Time     `json:"at,omitzero"`
	Detail string        `json:"detail,omitempty"`
	Part   int64         `json:"part"` // whole millionths of the score; the cap's is negative
	// Events are those of the pattern, on lines of kind pattern, oldest first. Some of them may have no part of their own.
	Events []Evidence `json:"events,omitempty"`
}

// Evidence is one event of a pattern.
type Evidence struct {
	Event  string        `json:"event"` // its id
	Verb   activity.Verb `json:"verb"`
	At     time.Time     `json:"at"`
	Detail string        `json:"detail,omitempty"`
}

// Line says what a Contribution stands for.
type Line string

// EventLine is the part of one event. PatternLine is what a pattern's multiplier or floor adds to the sum of the
// events. CapLine is what is cut because a score ends at 1.
const (
	EventLine   Line = "event"
	PatternLine Line = "pattern"
	CapLine     Line = "cap"
)

// Reason is what all events of one verb contribute, in plain words.
type Reason struct {
	Verb   activity.Verb `json:"verb"`
	Count  int           `json:"count"`            // events that still have a weight
	Part   int64         `json:"part"`             // whole millionths of the score
	Words  string        `json:"words"`            // "committed a secret 3 times"
	Last   time.Time     `json:"last"`             // when it last happened
	Detail string        `json:"detail,omitempty"` // of the last event
}

// LowerAct is something that the person can do, and the score after doing it now.
type LowerAct struct {
	Act     string          `json:"act"` // "module": pass it; "ticket": close it
	ID      string          `json:"id"`
	Title   string          `json:"title"`
	Teaches []activity.Verb `json:"teaches,omitempty"`
	After   Score           `json:"after"`
}

// Kinds of LowerAct.
const (
	PassModule  = "module"
	CloseTicket = "ticket"
)

// Point is a score at a time.
type Point struct {
	At    time.Time `json:"at"`
	Score Score     `json:"score"`
}

// Assessment is a person's score with its explanation, as it crosses the wire.
type Assessment struct {
	Person        string         `json:"person"`
	Role          Role           `json:"role"`
	At            time.Time      `json:"at"` // τ: later events are ignored
	Profile       string         `json:"profile"`
	Version       int            `json:"version"`
	Position      int64          `json:"position"` // of the event log; set by the scorer
	Score         Score          `json:"score"`
	Level         Level          `json:"level"`
	Sources       Sources        `json:"sources"`
	Multiplier    Micro          `json:"multiplier"`        // C, 1 if no pattern holds
	Floor         Micro          `json:"floor,omitzero"`    // the score is at least this while the pattern holds
	Pattern       string         `json:"pattern,omitempty"` // compromised, insider, burnout or a sequence's name
	Reasons       []Reason       `json:"reasons"`           // the largest part first
	Contributions []Contribution `json:"contributions"`     // the largest part first, then pattern and cap
	Lower         []LowerAct     `json:"lower"`             // the lowest resulting score first
	Trend         []Point        `json:"trend"`             // set by the scorer, oldest first
	Frequency     Frequency      `json:"frequency"`
	// Due is when the next training is due; see Profile.Due.
	Due        time.Time  `json:"due"`
	Escalation Escalation `json:"escalation,omitempty"`
	// Missing are sources that have been silent for too long. Nothing is known of what happened there, so a low score is
	// no evidence of low risk. Set by the scorer.
	Missing []activity.Source `json:"missing,omitempty"`
}
