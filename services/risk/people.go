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

// Person is one line of the roster: who works here, and under which vendor accounts.
type Person struct {
	ID       string   `json:"id"` // "mira.keller"
	Name     string   `json:"name"`
	Email    string   `json:"email"`
	Role     Role     `json:"role"`
	Team     string   `json:"team"`
	Manager  string   `json:"manager"` // a person's id, empty at the top
	Joined   string   `json:"joined"`  // YYYY-MM-DD, the first day
	Left     string   `json:"left"`    // YYYY-MM-DD, the first day after; empty while employed
	Zone     string   `json:"zone"`    // IANA name
	Accounts []string `json:"accounts"`
	// Run is the run of an exercise that the person was made for, empty for the company's own people: only those count in
	// its figures.
	Run string `json:"run,omitempty"`
}

var (
	personPattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)
	rolePattern    = regexp.MustCompile(`^[a-z][a-z_]{0,39}$`)
	accountPattern = regexp.MustCompile(`^[a-z]+:[!-~]{1,250}$`)
)

// Validate reports all faults of a roster line at once. A role that no profile knows is none: it is weighed by "otherwise".
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

// AccountKey is an account as it is compared: vendors do not agree about case.
func AccountKey(account string) string { return strings.ToLower(account) }

// Standing is a person's line in the list of people.
type Standing struct {
	Person
	At        time.Time `json:"at"`
	Score     Score     `json:"score"`
	Level     Level     `json:"level"`
	Frequency Frequency `json:"frequency"`
	// Due is when the next training is, and Escalation who is told that it has not been done, as in Assessment. Filled in by the
	// scorer.
	Due        time.Time  `json:"due,omitzero"`
	Escalation Escalation `json:"escalation,omitempty"`
	Shadow     *Shadow    `json:"shadow,omitempty"` // where another profile scores beside
}

// Shadow is what another profile says of the same events.
type Shadow struct {
	Profile string `json:"profile"`
	Version int    `json:"version"`
	Score   Score  `json:"score"`
	Level   Level  `json:"level"`
}

// OrganisationShadow is what another profile says of the company.
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

// Organisation is the company's risk: R_org = mean · mean R + max · max R + share · |{R ≥ HIGH}| / n.
type Organisation struct {
	At       time.Time   `json:"at"`
	Profile  string      `json:"profile"`
	Version  int         `json:"version"`
	Position int64       `json:"position"`
	Score    Score       `json:"score"`
	Level    Level       `json:"level"`
	People   int         `json:"people"` // who have joined and not left
	Mean     Score       `json:"mean"`
	Max      Score       `json:"max"`
	Levels   LevelCounts `json:"levels"`
	Roles    []RoleMean  `json:"roles"`    // the highest mean first
	Teams    []TeamMean  `json:"teams"`    // the highest mean first
	Trend    []Point     `json:"trend"`    // filled in by the scorer, oldest first
	Accounts int         `json:"accounts"` // vendor accounts that belong to nobody; filled in by the scorer
	// Missing are sources that have been silent for too long; the scores know nothing of what happened there. Filled in by
	// the scorer, as Shadow is.
	Missing []activity.Source   `json:"missing,omitempty"`
	Shadow  *OrganisationShadow `json:"shadow,omitempty"`
}

// Organise makes the organisation's risk of the standings of everybody in U.
func (p *Profile) Organise(people []Standing, at time.Time) Organisation {
	o := Organisation{At: at, Profile: p.Name, Version: p.Version, People: len(people), Level: Low, Roles: []RoleMean{}, Teams: []TeamMean{}, Trend: []Point{}}
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
	sum.Add(sum, new(big.Int).Mul(big.NewInt(int64(p.Company.Share)), big.NewInt(int64(o.Levels.High+o.Levels.Critical)*int64(One))))
	o.Score = ratio(sum, new(big.Int).Mul(big.NewInt(n*1e6), big.NewInt(int64(One))))
	o.Level = p.Company.Levels.level(o.Score)
	for role, r := range byRole {
		o.Roles = append(o.Roles, RoleMean{Role: role, People: int(r.people), Mean: mean(r.scores, r.people), High: int(r.high)})
	}
	for team, t := range byTeam {
		o.Teams = append(o.Teams, TeamMean{Team: team, People: int(t.people), Mean: mean(t.scores, t.people), High: int(t.high)})
	}
	slices.SortFunc(o.Teams, func(a, b TeamMean) int {
		return cmp.Or(cmp.Compare(b.Mean, a.Mean), cmp.Compare(a.Team, b.Team))
	})
	slices.SortFunc(o.Roles, func(a, b RoleMean) int {
		return cmp.Or(cmp.Compare(b.Mean, a.Mean), cmp.Compare(a.Role, b.Role))
	})
	return o
}

// Mean is the mean score of people, half up; 0 of nobody.
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

// mean is total/n, half up.
func mean(total, n int64) Score { return Score((2*total + n) / (2 * n)) }
