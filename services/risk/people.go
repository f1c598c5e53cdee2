package risk

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/activity"
)

// Person is one line of the roster: an employee and their vendor accounts.
type Person struct {
	ID       string   `json:"id"` // "mira.keller"
	Name     string   `json:"name"`
	Email    string   `json:"email"`
	Role     Role     `json:"role"`
	Team     string   `json:"team"`
	Manager  string   `json:"manager"` // a person's id, empty at the top
	Joined   string   `json:"joined"`  // YYYY-MM-DD, the first day
	Left     string   `json:"left"`    // YYYY-MM-DD, the first day after leaving; empty while employed
	Zone     string   `json:"zone"`    // IANA name
	Accounts []string `json:"accounts"`
	// Run is the exercise run that the person was created for; empty for the organisation's own people. Only those count
	// in its figures.
	Run string `json:"run,omitempty"`
}

var (
	personPattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)
	rolePattern    = regexp.MustCompile(`^[a-z][a-z_]{0,39}$`)
	accountPattern = regexp.MustCompile(`^[a-z]+:[!-~]{1,250}$`)
)

// Validate reports all faults of a roster line at once. A role that no profile knows is allowed: it takes the row
// "otherwise".
func (p Person) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !personPattern.MatchString(p.ID) {
		fault("id %q: want lower-case letters, digits, dots and dashes", p.ID)
	}
	if p.Name == "" || len(p.Name) > 200 {
		fault("name %q: want 1 to 200 bytes", p.Name)
	}
	if !rolePattern.MatchString(string(p.Role)) {
		fault("role %q: want words joined by underscores", p.Role)
	}
	if _, err := time.Parse(time.DateOnly, p.Joined); err != nil {
		fault("joined %q: want YYYY-MM-DD", p.Joined)
	}
	if _, err := time.Parse(time.DateOnly, p.Left); p.Left != "" && err != nil {
		fault("left %q: want YYYY-MM-DD or nothing", p.Left)
	} else if p.Left != "" && p.Left < p.Joined {
		fault("left %s: before joined %s", p.Left, p.Joined)
	}
	if p.Zone == "" || len(p.Zone) > 64 {
		fault("zone %q: want an IANA name", p.Zone)
	}
	if p.Run != "" && !personPattern.MatchString(p.Run) {
		fault("run %q: want lower-case letters, digits, dots and dashes", p.Run)
	}
	for _, a := range p.Accounts {
		if !accountPattern.MatchString(a) {
			fault("account %q: want system:name", a)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("person %q: %w", p.ID, errors.Join(faults...))
}

// Employed says whether the person has joined and not left at τ, by the UTC day.
func (p Person) Employed(at time.Time) bool {
	day := at.UTC().Format(time.DateOnly)
	return p.Joined <= day && (p.Left == "" || day < p.Left)
}

// AccountKey is an account in the form in which accounts are compared: vendors do not agree on case.
func AccountKey(account string) string { return strings.ToLower(account) }

// Standing is a person's entry in the list of people.
type Standing struct {
	Person
	At        time.Time `json:"at"`
	Score     Score     `json:"score"`
	Level     Level     `json:"level"`
	Frequency Frequency `json:"frequency"`
	// Due is when the next training is due, and Escalation who is told that it has not been done, as in Assessment. Set
	// by the scorer.
	Due        time.Time  `json:"due,omitzero"`
	Escalation Escalation `json:"escalation,omitempty"`
	Shadow     *Shadow    `json:"shadow,omitempty"` // the result of a second profile, where one is configured
}

// Shadow is the result of a second profile for the same events.
type Shadow struct {
	Profile string `json:"profile"`
	Version int    `json:"version"`
	Score   Score  `json:"score"`
	Level   Level  `json:"level"`
}

// OrganisationShadow is the result of a second profile for the organisation.
type OrganisationShadow struct {
	Profile string      `json:"profile"`
	Version int         `json:"version"`
	Score   Score       `json:"score"`
	Level   Level       `json:"level"`
	Levels  LevelCounts `json:"levels"`
	Differ  int         `json:"differ"` // people whose level differs
}

// RoleMean is the mean score of the people of one role.
type RoleMean struct {
	Role   Role  `json:"role"`
	People int   `json:"people"`
	Mean   Score `json:"mean"`
	High   int   `json:"high"` // people at HIGH or above
}

// TeamMean is the mean score of the people of one team.
type TeamMean struct {
	Team   string `json:"team"`
	People int    `json:"people"`
	Mean   Score  `json:"mean"`
	High   int    `json:"high"` // people at HIGH or above
}

// LevelCounts is how many people are at each level.
type LevelCounts struct {
	Low      int `json:"low"`
	Medium   int `json:"medium"`
	High     int `json:"high"`
	Critical int `json:"critical"`
}

// Organisation is the organisation's risk: R_org = mean · mean R + max · max R + share · |{R ≥ HIGH}| / n.
type Organisation struct {
	At       time.Time   `json:"at"`
	Profile  string      `json:"profile"`
	Version  int         `json:"version"`
	Position int64       `json:"position"`
	Score    Score       `json:"score"`
	Level    Level       `json:"level"`
	People   int         `json:"people"` // employed at At
	Mean     Score       `json:"mean"`
	Max      Score       `json:"max"`
	Levels   LevelCounts `json:"levels"`
	Roles    []RoleMean  `json:"roles"`    // the highest mean first
	Teams    []TeamMean  `json:"teams"`    // the highest mean first
	Trend    []Point     `json:"trend"`    // set by the scorer, oldest first
	Accounts int         `json:"accounts"` // vendor accounts without an owner; set by the scorer
	// Missing are sources that have been silent for too long: nothing is known of what happened there. Set by the scorer,
	// like Shadow.
	Missing []activity.Source   `json:"missing,omitempty"`
	Shadow  *OrganisationShadow `json:"shadow,omitempty"`
}

// Organise computes the organisation's risk from the standings of its people.
func (p *Profile) Organise(people []Standing, at time.Time) Organisation {
	o := Organisation{
		At: at, Profile: p.Name, Version: p.Version, People: len(people), Level: Low,
		Roles: []RoleMean{}, Teams: []TeamMean{}, Trend: []Point{},
	}
	if len(people) == 0 {
		return o
	}
	var total int64 // below 2^63 for nine million people
	type sums struct{ people, scores, high int64 }
	byRole, byTeam := map[Role]*sums{}, map[string]*sums{}
	for _, s := range people {
		total += int64(s.Score)
		o.Max = max(o.Max, s.Score)
		level := p.Level(s.Score)
		role, team := byRole[s.Role], byTeam[s.Team]
		if role == nil {
			role = &sums{}
			byRole[s.Role] = role
		}
		if team == nil {
			team = &sums{}
			byTeam[s.Team] = team
		}
		for _, g := range []*sums{role, team} {
			g.people++
			g.scores += int64(s.Score)
			if level.Rank() >= High.Rank() {
				g.high++
			}
		}
		switch level {
		case Low:
			o.Levels.Low++
		case Medium:
			o.Levels.Medium++
		case High:
			o.Levels.High++
		case Critical:
			o.Levels.Critical++
		}
	}
	n := int64(len(people))
	o.Mean = mean(total, n)
	// R_org · 10^6 · n in whole 1e-12, so that one division rounds once.
	sum := new(big.Int).Mul(big.NewInt(int64(p.Company.Mean)), big.NewInt(total))
	sum.Add(sum, new(big.Int).Mul(big.NewInt(int64(p.Company.Max)*n), big.NewInt(int64(o.Max))))
	high := int64(o.Levels.High + o.Levels.Critical)
	sum.Add(sum, new(big.Int).Mul(big.NewInt(int64(p.Company.Share)), big.NewInt(high*int64(One))))
	o.Score = ratio(sum, new(big.Int).Mul(big.NewInt(n*1e6), big.NewInt(int64(One))))
	o.Level = p.Company.Levels.level(o.Score)
	for role, r := range byRole {
		o.Roles = append(o.Roles, RoleMean{
			Role: role, People: int(r.people), Mean: mean(r.scores, r.people), High: int(r.high),
		})
	}
	for team, t := range byTeam {
		o.Teams = append(o.Teams, TeamMean{
			Team: team, People: int(t.people), Mean: mean(t.scores, t.people), High: int(t.high),
		})
	}
	slices.SortFunc(o.Teams, func(a, b TeamMean) int {
		return cmp.Or(cmp.Compare(b.Mean, a.Mean), cmp.Compare(a.Team, b.Team))
	})
	slices.SortFunc(o.Roles, func(a, b RoleMean) int {
		return cmp.Or(cmp.Compare(b.Mean, a.Mean), cmp.Compare(a.Role, b.Role))
	})
	return o
}

// Mean is the mean score of people, rounded half up; 0 for an empty list.
func Mean(people []Standing) Score {
	if len(people) == 0 {
		return 0
	}
	var total int64
	for _, s := range people {
		total += int64(s.Score)
	}
	return mean(total, int64(len(people)))
}

// mean is total/n, rounded half up.
func mean(total, n int64) Score { return Score((2*total + n) / (2 * n)) }
