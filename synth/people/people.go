// Package people generates a company: its people, their habits and their storylines.
//
// The same seed gives the same people on every machine. Role, team and storyline follow from a person's index in a
// seeded pattern of 50 places. Everything else comes from random streams of each person, so that adding a person does
// not change others.
package people

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	_ "time/tzdata" // so that time zones do not depend on the machine

	"github.com/brianvoe/gofakeit/v7"

	"example.org/security-training/services/risk"
)

// Mix is the kind of a company.
type Mix string

// Published has many careless people and reproduces the published tables. Sparse is an ordinary company, where 4 % of
// the people have a storyline.
const (
	Published Mix = "published"
	Sparse    Mix = "sparse"
)

// MixFrom reads a mix; "" means Published.
func MixFrom(name string) (Mix, error) {
	switch m := Mix(name); m {
	case "":
		return Published, nil
	case Published, Sparse:
		return m, nil
	}
	return "", fmt.Errorf("mix %q: want %s or %s", name, Published, Sparse)
}

// Person is a person of the company: the roster's line, habits and storyline.
type Person struct {
	risk.Person
	Seed   uint64 `json:"-"` // of the company
	Index  int    `json:"-"` // in the company, from 0
	Habits Habits `json:"-"`
	// The storyline. It is part of the answer key: no service may see it.
	Story Story      `json:"-"`
	Near  Near       `json:"-"`
	Label risk.Level `json:"-"`
}

// Near says whether a storyline is real or a near miss, which must not be flagged.
type Near bool

// The two kinds of storyline.
const (
	Real     Near = false
	NearMiss Near = true
)

// Habits are the same every day.
type Habits struct {
	Start    time.Duration // of the working day, after local midnight
	Length   time.Duration // of the working day
	Commits  float64       // on an ordinary day
	Reviews  float64
	Tickets  float64
	SignIns  float64
	Exports  float64
	Weekends float64 // share of a working day's work that is done on a Saturday or Sunday
	Drift    float64 // relative change of carelessness over 30 days
	// first and last day of a holiday, in days from the epoch's date; empty if the first is after the last
	Away  [2]int
	Repos []string
	Slips Slips
}

// Slips say how careless a person is for each source: the severity (α, see the risk model) of the slips of the last
// weeks, newer ones counting more, with 1 as the maximum. Training is the severity of overdue training.
type Slips struct{ Git, IAM, SIEM, Training float64 }

// Location is the person's time zone.
func (p Person) Location() *time.Location {
	l, err := time.LoadLocation(p.Zone)
	if err != nil {
		panic(fmt.Errorf("zone %s of %s: %w", p.Zone, p.ID, err)) // zones come from this package's list
	}
	return l
}

// Stream is a random stream of the person for one purpose ("git", …).
func (p Person) Stream(purpose string, number int) *rand.Rand {
	return stream(p.Seed, p.Index, purpose, number)
}

// CompanyStream is a random stream of the company, for what does not belong to a person, such as a vendor's clock.
func CompanyStream(seed uint64, purpose string, number int) *rand.Rand {
	return stream(seed, -1, purpose, number)
}

func stream(seed uint64, index int, purpose string, number int) *rand.Rand {
	h := sha256.Sum256(fmt.Appendf(nil, "%d/%d/%s/%d", seed, index, purpose, number))
	return rand.New(rand.NewPCG(binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:16])))
}

var zones = []string{
	"Europe/Berlin", "Europe/Berlin", "Europe/Berlin", "Europe/Zurich", "Europe/Vienna", "Europe/Paris", "Europe/Madrid",
	"Europe/Warsaw", "Europe/Lisbon", "Europe/London", "Europe/Helsinki", "America/New_York",
}

var teams = map[risk.Role]string{
	risk.BackendDeveloper: "payments", risk.FrontendDeveloper: "web", risk.DevOpsEngineer: "platform",
	risk.SRE:               "platform",
	risk.DevSecOpsEngineer: "security", risk.CloudSecurityAnalyst: "security", risk.DataAnalyst: "data",
	risk.DataEngineer: "data",
}

var repositories = map[risk.Role][]string{
	risk.BackendDeveloper: {"payments", "ledger", "billing-api"}, risk.FrontendDeveloper: {"storefront", "design-system",
		"checkout-web"},
	risk.DevOpsEngineer: {"infrastructure", "pipelines", "cluster-config"}, risk.SRE: {"infrastructure", "runbooks",
		"alerting"},
	risk.DevSecOpsEngineer: {"policy-as-code", "scanner"}, risk.CloudSecurityAnalyst: {"detections", "policy-as-code"},
	risk.DataAnalyst: {"reports", "notebooks"}, risk.DataEngineer: {"warehouse", "etl-jobs", "notebooks"},
}

// daily is the activity of a role on an ordinary day: commits, reviews, tickets, exports.
var daily = map[risk.Role][4]float64{
	risk.BackendDeveloper: {3, 1, 1, 0}, risk.FrontendDeveloper: {3, 1, 1, 0}, risk.DevOpsEngineer: {2, .5, 1, 0},
	risk.SRE:               {1.5, .5, 1.5, 0},
	risk.DevSecOpsEngineer: {1.5, 1, 1, 0}, risk.CloudSecurityAnalyst: {.8, .5, 1.5, 0}, risk.DataAnalyst: {1, .3, 1, .3},
	risk.DataEngineer: {2, .5, 1, .2},
}

// peopleInBlock is how many people share one set of teams; the next block has a team "payments 2".
const peopleInBlock = 100

// Company is n people. The first ones are the same for every n.
func Company(seed uint64, n int, mix Mix) []Person {
	pattern := CompanyStream(seed, "places", 0).Perm(len(places))
	turn := CompanyStream(seed, "stories", 0).IntN(len(Stories))
	staff := make([]Person, n)
	managers := map[string]string{}
	ids := map[string]bool{}
	for i := range staff {
		p := invent(seed, i, places[pattern[i%len(places)]], mix, seat{block: i / len(places), place: pattern[i%len(places)],
			turn: turn}, ids)
		if block := i / peopleInBlock; block > 0 {
			p.Team = fmt.Sprintf("%s %d", p.Team, block+1)
		}
		switch boss, ok := managers[p.Team]; {
		case ok:
			p.Manager = boss
		default: // the first of a team leads it, and reports to the first of the company
			managers[p.Team] = p.ID
			if i > 0 {
				p.Manager = staff[0].ID
			}
		}
		staff[i] = p
	}
	return staff
}

// Contractors are people outside the roster: their acts have accounts without an owner. There is one for every 25
// employees.
func Contractors(seed uint64, n int) []Person {
	list := make([]Person, (n+24)/25)
	ids := map[string]bool{}
	for i := range list {
		p := invent(seed, 1_000_000+i, place{role: risk.BackendDeveloper}, Sparse, seat{}, ids)
		p.ID = "ext." + p.ID
		p.Email = p.ID + "@contractor.example"
		p.Accounts = accounts(p)
		p.Team, p.Story, p.Near, p.Label = "contractors", "", Real, risk.Low
		p.Habits.Slips = Slips{}
		p.Habits.Commits, p.Habits.Reviews, p.Habits.Tickets, p.Habits.SignIns = .4, 0, .1, .3
		list[i] = p
	}
	return list
}

// Of 50 people of the mix Sparse, how many have a storyline, and how many a near miss.
const (
	sparseReal = 2
	sparseNear = 6
)

// seat is a person's place in the pattern that assigns the storylines of the mix Sparse.
type seat struct{ block, place, turn int }

// number is 0 to 49, a different one in each block, so that every role gets storylines.
func (s seat) number() int { return (s.place + s.turn + 13*s.block) % 50 }

// invent generates one person. ids are the ids of people with a lower index.
func invent(seed uint64, index int, at place, mix Mix, s seat, ids map[string]bool) Person {
	p := Person{Seed: seed, Index: index}
	r := p.Stream("person", 0)
	fake := gofakeit.NewFaker(r, false) // never gofakeit.New(0), which is random
	first, last := fake.FirstName(), fake.LastName()
	p.Name = first + " " + last
	p.ID = plain(first) + "." + plain(last)
	for k := 2; ids[p.ID]; k++ {
		p.ID = fmt.Sprintf("%s.%s%d", plain(first), plain(last), k)
	}
	ids[p.ID] = true
	p.Role, p.Team = at.role, teams[at.role]
	p.Email = p.ID + "@example.org"
	p.Zone = zones[r.IntN(len(zones))]
	p.Joined = risk.Epoch.AddDate(0, 0, -200-r.IntN(2500)).Format(time.DateOnly)
	if index%20 == 7 { // a joiner of the last weeks
		p.Joined = risk.Epoch.AddDate(0, 0, -31-r.IntN(20)).Format(time.DateOnly)
	}
	p.Accounts = accounts(p)

	d := daily[at.role]
	h := &p.Habits
	h.Start = 7*time.Hour + 30*time.Minute + time.Duration(r.IntN(8))*15*time.Minute
	h.Length = 8*time.Hour + time.Duration(r.IntN(7))*15*time.Minute
	h.Commits, h.Reviews, h.Tickets, h.Exports = d[0]*(.7+.6*r.Float64()), d[1]*(.7+.6*r.Float64()), d[2], d[3]
	h.SignIns = 1 + r.Float64()
	if r.Float64() < .12 {
		h.Weekends = .2 + .3*r.Float64()
	}
	h.Drift = .4*r.Float64() - .2
	h.Away = [2]int{0, -1}
	if r.Float64() < .15 {
		from := -28 + r.IntN(20)
		h.Away = [2]int{from, from + 2 + r.IntN(3)}
	}
	repos := repositories[at.role]
	h.Repos = repos[:1+r.IntN(len(repos))]
	character(&p, at, mix, s, r)
	if p.Story == OffBoarding {
		p.Left = risk.Epoch.AddDate(0, 0, 6+r.IntN(10)).Format(time.DateOnly)
	}
	return p
}

// character sets a person's storyline, carelessness and label.
func character(p *Person, at place, mix Mix, sit seat, r *rand.Rand) {
	h := &p.Habits
	switch mix {
	case Published:
		p.Story, p.Near, h.Slips = at.story, at.near, at.slips
	case Sparse:
		c := .05 + .22*r.Float64()
		if r.Float64() < .3 {
			c = .3 + .2*r.Float64()
		}
		h.Slips = Slips{c, c, c, c}
		switch n := sit.number(); {
		case n < sparseReal: // 4 in 100
			p.Story = Stories[(sit.turn+sit.block*sparseReal+n)%len(Stories)]
			if p.Story == Compromised || p.Story == Dormant {
				h.Slips.Git = 0 // a slip would be a commit
			}
		case n < sparseReal+sparseNear:
			p.Story, p.Near = Stories[(sit.turn+sit.block*sparseNear+n)%len(Stories)], NearMiss
		}
	}
	for _, s := range []*float64{&h.Slips.Git, &h.Slips.IAM, &h.Slips.SIEM, &h.Slips.Training} {
		if *s > 0 {
			*s = max(.02, *s+.05*(r.Float64()-.5))
		}
	}
	switch story := Tales[p.Story]; {
	case p.Story != "" && p.Near == Real:
		p.Label = story.Level
		switch p.Story {
		case Compromised:
			h.Commits, h.Reviews = 0, 0 // works in consoles
		case Dormant:
			h.Commits, h.Reviews, h.Tickets, h.SignIns, h.Exports = 0, 0, 0, 0, 0
		}
		if p.Story == Burnout {
			h.Weekends = .6
		}
		h.Away = [2]int{0, -1}
		return
	}
	switch {
	case p.Near != NearMiss:
	case p.Story == Burnout:
		h.Weekends = .4
	case p.Story == Dormant:
		h.Away = [2]int{-40, -10 - r.IntN(3)}
	}
	switch {
	case h.Slips.Git+h.Slips.IAM+h.Slips.SIEM+h.Slips.Training > 1.2:
		p.Label = risk.Medium
	default:
		p.Label = risk.Low
	}
}

func accounts(p Person) []string {
	id := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "jira/%d/%s", p.Seed, p.ID)))
	dashed := strings.ReplaceAll(p.ID, ".", "-")
	return []string{"github:" + dashed, "email:" + p.Email, "jira:" + id[:24], "okta:" + p.Email, "aws:" + dashed}
}

// plain is the letters of a name in lower case.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(name))
}

// Answer is one line of the answer key.
type Answer struct {
	Person string     `json:"person"`
	Story  Story      `json:"story,omitempty"`
	Near   Near       `json:"nearMiss,omitempty"`
	Label  risk.Level `json:"label"`
}

// Key is the answer key of a company. It is written where no service can read it.
func Key(staff []Person) []Answer {
	key := make([]Answer, len(staff))
	for i, p := range staff {
		key[i] = Answer{Person: p.ID, Story: p.Story, Near: p.Near, Label: p.Label}
	}
	return key
}

// Roster is the company in the form for the risk scorer.
func Roster(staff []Person) []risk.Person {
	list := make([]risk.Person, len(staff))
	for i, p := range staff {
		list[i] = p.Person
	}
	return list
}
