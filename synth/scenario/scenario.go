// Package scenario reads exercises: a timeline of events, and expectations of how the lab reacts.
//
// The same file teaches people and tests the code. The instructor's terminal, the console and the tests all use Load,
// Play (or Steps) and Check.
package scenario

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/nearest"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// Scenario is one exercise.
type Scenario struct {
	Name       string   `yaml:"-"` // of the file, without its extension
	Title      string   `yaml:"title"`
	Teaches    []string `yaml:"teaches"`
	Attack     []string `yaml:"attack"`     // MITRE ATT&CK techniques
	Difficulty int      `yaml:"difficulty"` // 1 to 5
	Minutes    int      `yaml:"minutes"`
	Seed       uint64   `yaml:"seed"`
	// the profile of the expected levels, independent of the lab's; Published by default
	Profile  string            `yaml:"profile"`
	Cast     map[string]Member `yaml:"cast"`
	Brief    string            `yaml:"brief"`
	Hints    []Hint            `yaml:"hints"`
	Timeline []Moment          `yaml:"timeline"`
	Expect   []Expectation     `yaml:"expect"`
	Debrief  string            `yaml:"debrief"`
}

// Published is the profile of a scenario that names none: the published model with decay.
const Published = "decay-v1"

// Member is a member of the cast: by default a new person, who is not in the roster yet.
type Member struct {
	Role risk.Role `yaml:"role"`
	Zone string    `yaml:"zone"` // IANA name, Europe/Berlin by default
	From string    `yaml:"from"` // "company": an employee with that role
}

// Hint costs points of the exercise's 100.
type Hint struct {
	Cost int    `yaml:"cost"`
	Text string `yaml:"text"`
}

// Offset is a time on the day of a scenario: "17h14m" after midnight.
type Offset time.Duration

// Moment is one line of the timeline.
type Moment struct {
	At     Offset          `yaml:"at"`
	Who    string          `yaml:"who"`
	Source activity.Source `yaml:"source"`
	Record Record          `yaml:"record"`
	Times  int             `yaml:"times"` // in a row, seconds apart; 1 by default
	Line   int             `yaml:"-"`     // in the file
}

// Record describes an act. Event is a verb without its source ("service_account_key"). Secret is the kind of a
// committed secret. OffHours adds off-hours access to the same resource.
type Record struct {
	Event      string `yaml:"event"`
	Secret     string `yaml:"secret"`
	OffHours   bool   `yaml:"off_hours"`
	Repository string `yaml:"repository"`
	Path       string `yaml:"path"`
	Ticket     string `yaml:"ticket"`
	Resource   string `yaml:"resource"`
	Bytes      int64  `yaml:"bytes"`
	Detail     string `yaml:"detail"`
}

// Expectation is about a person (Who, Level, Because) at a time, or about a call (Call, Route, Outcome).
type Expectation struct {
	At      Offset          `yaml:"at"` // the scenario's end by default
	Who     string          `yaml:"who"`
	Level   risk.Level      `yaml:"level"`
	Because []activity.Verb `yaml:"because"` // all of these are among the reasons

	Call    string           `yaml:"call"` // "git-collector -> llm-gateway"
	As      string           `yaml:"as"`   // what the caller uses instead of its identity: one of Disguises
	Route   topology.Route   `yaml:"route"`
	Outcome topology.Outcome `yaml:"outcome"`
	Reason  string           `yaml:"reason"` // the code in the refusing side's audit
	Line    int              `yaml:"-"`      // in the file
}

// Disguises are what a caller may use instead of its identity: no certificate, an unlisted ID, an ID of a foreign
// domain, a listed ID signed by another CA, an expired certificate, no TLS, an old TLS version.
var Disguises = []string{"nobody", "stranger", "foreign", "forged", "expired", "plaintext", "tls12"}

// Parties are the caller and the callee of an expected call.
func (e Expectation) Parties() (caller, callee string) {
	caller, callee, _ = strings.Cut(e.Call, "->")
	return strings.TrimSpace(caller), strings.TrimSpace(callee)
}

// String is the offset in the form of the file: "17h14m".
func (o Offset) String() string {
	s := time.Duration(o).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// UnmarshalYAML reads "17h14m". Its error does not hide faults of other lines.
func (o *Offset) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < 0 || d > 30*24*time.Hour {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: at %.40q: want a time such as 17h14m, up to 720h",
			n.Line, n.Value)}}
	}
	*o = Offset(d)
	return nil
}

// maxFile is the maximum size of a file in bytes.
const maxFile = 1 << 20

// Load reads and validates a scenario for the place there. The error names every fault with its line. All names in the
// result exist: roles, modules, techniques, verbs, kinds of secrets, workloads, routes and reasons.
func Load(name string, text []byte, there Place) (*Scenario, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("read scenario %s: over %d bytes", name, maxFile)
	}
	s := &Scenario{Name: name}
	var faults []string
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var wrong *yaml.TypeError
	switch err := d.Decode(s); {
	case errors.As(err, &wrong):
		faults = append(faults, wrong.Errors...)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read scenario %s: the file is empty", name)
	case err != nil:
		return nil, fmt.Errorf("read scenario %s: %w", name, err)
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		faults = append(faults, "line 1: a second document begins in this file: want one scenario in a file")
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", name, err)
	}
	lines := s.place(&root)
	faults = append(faults, s.faults(lines)...)
	faults = append(faults, s.names(lines, there)...)
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b string) int { return cmp.Or(cmp.Compare(lineOf(a), lineOf(b)), cmp.Compare(a, b)) })
		return nil, fmt.Errorf("read scenario %s:\n  %s", name, strings.Join(slices.Compact(faults), "\n  "))
	}
	for i := range s.Timeline {
		s.Timeline[i].Times = max(1, s.Timeline[i].Times)
	}
	for i, e := range s.Expect {
		if e.At == 0 {
			s.Expect[i].At = s.last()
		}
	}
	return s, nil
}

func lineOf(fault string) int {
	n := 0
	_, _ = fmt.Sscanf(fault, "line %d:", &n) // 0, and so first, for a fault without a line
	return n
}

// place sets the line of each moment and expectation, and returns the lines of the top-level keys and of the cast
// ("cast/mira").
func (s *Scenario) place(root *yaml.Node) map[string]int {
	lines := map[string]int{}
	if len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
		return lines
	}
	top := root.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		k, v := top[i].Value, top[i+1]
		lines[k] = top[i].Line
		for j, item := range v.Content {
			switch {
			case k == "timeline" && j < len(s.Timeline):
				s.Timeline[j].Line = item.Line
			case k == "expect" && j < len(s.Expect):
				s.Expect[j].Line = item.Line
			case k == "hints":
				lines[fmt.Sprintf("hints/%d", j)] = item.Line
			case k == "cast" && j%2 == 0:
				lines["cast/"+item.Value] = item.Line
			}
		}
	}
	return lines
}

func (s *Scenario) last() Offset {
	last := Offset(0)
	for _, m := range s.Timeline {
		last = max(last, m.At)
	}
	for _, e := range s.Expect {
		last = max(last, e.At)
	}
	return last
}

var (
	whoPattern    = regexp.MustCompile(`^[a-z][a-z0-9]{0,19}$`)
	attackPattern = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)
	namePattern   = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
)

// faults lists all faults, each as "line n: …".
func (s *Scenario) faults(lines map[string]int) []string {
	var list []string
	at := func(line int, format string, args ...any) {
		list = append(list, fmt.Sprintf("line %d: ", max(1, line))+fmt.Sprintf(format, args...))
	}
	if !namePattern.MatchString(s.Name) {
		at(1, "name %q: want lower case letters, digits and dashes, at most 40", s.Name)
	}
	for key, empty := range map[string]bool{"title": s.Title == "", "brief": s.Brief == "", "debrief": s.Debrief == "",
		"teaches": len(s.Teaches) == 0, "cast": len(s.Cast) == 0,
		"expect": len(s.Expect) == 0, "hints": len(s.Hints) == 0} {
		if empty {
			at(lines[key], "%s: missing", key)
		}
	}
	for _, a := range s.Attack {
		if !attackPattern.MatchString(a) {
			at(lines["attack"], "attack %q: want a technique such as T1552.001", a)
		}
	}
	if s.Difficulty < 1 || s.Difficulty > 5 {
		at(lines["difficulty"], "difficulty %d: want 1 to 5", s.Difficulty)
	}
	if s.Minutes < 1 || s.Minutes > 240 {
		at(lines["minutes"], "minutes %d: want 1 to 240", s.Minutes)
	}
	if s.Profile == "" {
		s.Profile = Published
	}
	if _, err := risk.ProfileByName(s.Profile); err != nil {
		at(lines["profile"], "profile: %v", err)
	}
	points := 0
	for i, h := range s.Hints {
		points += h.Cost
		if h.Cost < 0 || h.Text == "" || points > 100 {
			at(lines[fmt.Sprintf("hints/%d", i)], "hint %d: want a text and a cost, and all together at most 100 points", i+1)
		}
	}
	for who, m := range s.Cast {
		line := lines["cast/"+who]
		if !whoPattern.MatchString(who) {
			at(line, "cast %q: want a short first name in lower case", who)
		}
		if m.Role == "" {
			at(line, "cast %s: role: missing", who)
		}
		if m.From != "" && m.From != "company" {
			at(line, "cast %s: from %q: want company, or nothing for a fresh person", who, m.From)
		}
		if _, err := time.LoadLocation(m.Zone); err != nil {
			at(line, "cast %s: zone %q is not known", who, m.Zone)
		}
	}
	for _, m := range s.Timeline {
		if _, ok := s.Cast[m.Who]; !ok {
			at(m.Line, "who %q is not in the cast", m.Who)
		}
		if m.Times < 0 || m.Times > 1000 {
			at(m.Line, "times %d: want 1 to 1000", m.Times)
		}
		if err := m.check(); err != nil {
			at(m.Line, "%v", err)
		}
	}
	bystander := false
	for _, e := range s.Expect {
		for _, fault := range e.faults(s.Cast) {
			at(e.Line, "%s", fault)
		}
		bystander = bystander || e.Level == risk.Low && e.Call == ""
	}
	if len(s.Expect) > 0 && !bystander {
		at(lines["expect"], "expect: no line says that a person stays LOW; each scenario needs a bystander")
	}
	return list
}

func (e Expectation) faults(members map[string]Member) []string {
	var list []string
	fault := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if (e.Who == "") == (e.Call == "") {
		fault("want either who or call")
		return list
	}
	if e.Who != "" {
		if _, ok := members[e.Who]; !ok {
			fault("who %q is not in the cast", e.Who)
		}
		if e.Level.Rank() < 0 || !slices.Contains([]risk.Level{risk.Low, risk.Medium, risk.High, risk.Critical}, e.Level) {
			fault("level %q: want LOW, MEDIUM, HIGH or CRITICAL", e.Level)
		}
		for _, v := range e.Because {
			if risk.MustProfile(Published).Severities[v] == 0 {
				fault("because %q is not a verb that carries risk%s", v, nearest.Hint(string(v), risky()))
			}
		}
		if e.As != "" || e.Route != "" || e.Outcome != "" || e.Reason != "" {
			fault("as, route, outcome and reason belong to a call")
		}
		return list
	}
	if caller, callee := e.Parties(); caller == "" || callee == "" {
		fault("call %q: want caller -> callee", e.Call)
	}
	if e.As != "" && !slices.Contains(Disguises, e.As) {
		fault("as %q: want one of %s%s", e.As, strings.Join(Disguises, ", "), nearest.Hint(e.As, Disguises))
	}
	if e.Route.Method() == "" || !strings.HasPrefix(e.Route.Path(), "/") {
		fault("route %q: want a method and a path", e.Route)
	}
	if !slices.Contains([]topology.Outcome{topology.Allowed, topology.Forbidden, topology.Refused}, e.Outcome) {
		fault("outcome %q: want Allowed, Forbidden or Refused", e.Outcome)
	}
	if e.Level != "" || len(e.Because) > 0 {
		fault("level and because belong to a person")
	}
	return list
}

// verbs are the verbs of a moment, one for each act.
func (m Moment) verbs() []activity.Verb {
	var list []activity.Verb
	switch {
	case m.Record.Secret != "":
		list = append(list, activity.SecretCommitted)
	case m.Record.Event != "":
		list = append(list, activity.Verb(string(m.Source)+"."+m.Record.Event))
	}
	if m.Record.OffHours && !slices.Contains(list, activity.OffHoursAccess) {
		list = append(list, activity.OffHoursAccess)
	}
	return list
}

// check says whether the vendors can report the moment's acts.
func (m Moment) check() error {
	r := m.Record
	switch {
	case (r.Event == "") == (r.Secret == ""):
		return errors.New("record: want either event or secret")
	case r.Secret != "" && m.Source != activity.Git:
		return fmt.Errorf("record: a secret is of source git, not %q", m.Source)
	case r.OffHours && m.Source != activity.IAM:
		return fmt.Errorf("record: off_hours is of source iam, not %q", m.Source)
	case r.Bytes < 0:
		return fmt.Errorf("record: bytes %d: negative", r.Bytes)
	}
	someone := person("someone", "someone", "someone", Member{})
	for _, a := range m.acts("check", 0, time.Unix(0, 0), someone.ID) {
		if _, err := world.Traces([]risk.Person{someone}, []routine.Act{a}); err != nil {
			return fmt.Errorf(
				"record: no simulator reports event %q of source %q%s",
				r.Event,
				m.Source,
				nearest.Hint(r.Event, eventsOf(m.Source)),
			)
		}
	}
	return nil
}

// acts are the acts of a moment; run and index determine their ids.
func (m Moment) acts(run string, index int, at time.Time, who string) []routine.Act {
	var list []routine.Act
	r := m.Record
	for _, v := range m.verbs() {
		id := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%s", run, index, v))
		detail := r.Detail
		if detail == "" && r.Secret != "" {
			detail = "add settings"
		}
		list = append(list, routine.Act{ID: hex.EncodeToString(id[:12]), At: at, Person: who, Source: m.Source, Verb: v,
			Repository: r.Repository, Path: r.Path, Ticket: r.Ticket,
			Resource: r.Resource, Bytes: r.Bytes, Count: max(1, m.Times), Detail: detail})
	}
	return list
}
