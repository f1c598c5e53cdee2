// Package risk is the vocabulary and the model of people's risk: profiles (weights, severities, decay, patterns,
// levels) as versioned data, and pure functions from a person's events to a score and its explanation.
//
// For a person of role r and events e of a source s up to time τ (the published model, and its decaying variant):
//
//	R_s = min(1, Σ α_e · N(e, τ))     N = 1 inside the window, or 2^(−age/half-life)
//	R   = min(1, C · Σ w_{s,r} · R_s)
//
// A profile may also set floors for combinations that mean more than their parts:
// R = min(1, max(C · B, floor + slope · B)). Sums are made in fixed point, so a score does not depend on the order of
// events or on the machine.
package risk

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"example.org/security-training/services/activity"
)

// Role is a person's job, as the roster and the profile's weights name it.
type Role string

// Roles that the profiles know; any other role takes the profile's "otherwise" row.
const (
	BackendDeveloper     Role = "backend_developer"
	FrontendDeveloper    Role = "frontend_developer"
	DevOpsEngineer       Role = "devops_engineer"
	DevSecOpsEngineer    Role = "devsecops_engineer"
	CloudSecurityAnalyst Role = "cloud_security_analyst"
	DataAnalyst          Role = "data_analyst"
	DataEngineer         Role = "data_engineer"
	SRE                  Role = "sre"
)

// Roles lists the known roles in the order of the published table.
var Roles = []Role{
	BackendDeveloper, FrontendDeveloper, DevOpsEngineer, DevSecOpsEngineer,
	CloudSecurityAnalyst, DataAnalyst, DataEngineer, SRE,
}

// Micro is a non-negative decimal number in whole millionths, read exactly from YAML or JSON.
type Micro int64

// UnmarshalJSON reads a decimal number of at most six decimals.
func (m *Micro) UnmarshalJSON(b []byte) error {
	v, err := decimal(string(b), 6)
	if err != nil {
		return err
	}
	if v < 0 {
		return fmt.Errorf("%s is negative", b)
	}
	*m = Micro(v)
	return nil
}

// MarshalJSON writes the number as a decimal.
func (m Micro) MarshalJSON() ([]byte, error) {
	text := strings.TrimRight(fmt.Sprintf("%d.%06d", m/1e6, m%1e6), "0")
	return []byte(strings.TrimSuffix(text, ".")), nil
}

// Float is the number as float64.
func (m Micro) Float() float64 { return float64(m) / 1e6 }

// Duration is a time.Duration written as "168h".
type Duration time.Duration

// UnmarshalJSON reads "168h".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// Weights are a role's shares of the four groups of sources; they sum to 1.
type Weights struct {
	Git      Micro `json:"git"`
	IAM      Micro `json:"iam"`
	SIEM     Micro `json:"siem"`
	Training Micro `json:"training"` // of jira and the learning system
}

func (w Weights) of(g activity.Group) Micro {
	return [activity.Groups]Micro{w.Git, w.IAM, w.SIEM, w.Training}[g]
}

// Bounds are the scores at which MEDIUM, HIGH and CRITICAL begin.
type Bounds struct {
	Medium   Micro `json:"medium"`
	High     Micro `json:"high"`
	Critical Micro `json:"critical"`
}

// rise says whether the bounds ascend inside 0 to 1.
func (b Bounds) rise() bool {
	return 0 < b.Medium && b.Medium < b.High && b.High < b.Critical && b.Critical < 1e6
}

func (b Bounds) level(s Score) Level {
	switch {
	case s >= Score(b.Critical)*1e6:
		return Critical
	case s >= Score(b.High)*1e6:
		return High
	case s >= Score(b.Medium)*1e6:
		return Medium
	}
	return Low
}

// Profile is one way to score, as versioned data. A stored score names the profile and its version.
type Profile struct {
	Name       string                  `json:"name"`
	Version    int                     `json:"version"`
	HalfLife   Duration                `json:"halfLife"` // zero: no decay, and events outside the window do not count
	Window     Duration                `json:"window"`
	Weights    map[Role]Weights        `json:"weights"`
	Otherwise  Weights                 `json:"otherwise"`
	Severities map[activity.Verb]Micro `json:"severities"`
	Patterns   Patterns                `json:"patterns"`
	Levels     Bounds                  `json:"levels"`
	Company    CompanyRule             `json:"organisation"`
}

// Patterns are the combinations that multiply a score or set a floor: C · B becomes max(C · B, floor + slope · B).
// Every "Over" is exclusive: more than.
type Patterns struct {
	Slope     Micro      `json:"slope"`
	Sequences []Sequence `json:"chains"` // the highest floor that holds counts; of equal ones the first

	Compromised struct {
		Multiplier Micro  `json:"multiplier"`
		IAMOver    int    `json:"iamOver"`
		IAMCounts  string `json:"iamCounts"` // "all" events of source iam, or only the "risky" ones
		SIEMOver   int    `json:"siemOver"`
		Floor      Micro  `json:"floor"`
	} `json:"compromised"`
	Insider struct {
		Multiplier  Micro    `json:"multiplier"`
		ExportBytes int64    `json:"exportBytes"` // the smallest export that counts
		Approval    Duration `json:"approval"`    // how long an approval is valid
		Floor       Micro    `json:"floor"`
	} `json:"insider"`
	Burnout struct {
		Multiplier         Micro `json:"multiplier"`
		ForcePushesOver    int   `json:"forcePushesOver"`
		OverdueTicketsOver int   `json:"overdueTicketsOver"`
		Floor              Micro `json:"floor"`
	} `json:"burnout"`
}

// lookBack is how long before the window events can still affect a pattern.
func (p *Patterns) lookBack() time.Duration {
	longest := p.Insider.Approval
	for _, c := range p.Sequences {
		longest = max(longest, c.Quiet)
	}
	return time.Duration(longest)
}

// CompanyRule says how people's scores make up the organisation's score.
type CompanyRule struct {
	Mean   Micro  `json:"mean"`
	Max    Micro  `json:"max"`
	Share  Micro  `json:"share"` // weight of the share of people at HIGH or above
	Levels Bounds `json:"levels"`
}

//go:embed profiles/*.yaml
var profileFiles embed.FS

var profiles = mustProfiles()

// Default is the profile of a new lab: the one that best tells who needs help, as measured by `lab eval`.
const Default = "lab-v1"

// Profiles lists every profile by name.
func Profiles() []*Profile {
	list := make([]*Profile, 0, len(profiles))
	for _, p := range profiles {
		list = append(list, p)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// ProfileByName finds a profile; the error names the profiles that exist.
func ProfileByName(name string) (*Profile, error) {
	if p, ok := profiles[name]; ok {
		return p, nil
	}
	var known []string
	for _, p := range Profiles() {
		known = append(known, p.Name)
	}
	return nil, fmt.Errorf("find profile %q: want one of %s", name, strings.Join(known, ", "))
}

// MustProfile is ProfileByName for tests and constants.
func MustProfile(name string) *Profile {
	p, err := ProfileByName(name)
	if err != nil {
		panic(err)
	}
	return p
}

func mustProfiles() map[string]*Profile {
	files, err := profileFiles.ReadDir("profiles")
	if err != nil {
		panic(err)
	}
	all := map[string]*Profile{}
	for _, f := range files {
		text, err := profileFiles.ReadFile(path.Join("profiles", f.Name()))
		if err != nil {
			panic(err)
		}
		p, err := ParseProfile(text)
		if err != nil {
			panic(fmt.Errorf("%s: %w", f.Name(), err))
		}
		all[p.Name] = p
	}
	return all
}

// ParseProfile reads a profile and reports all its faults at once.
func ParseProfile(text []byte) (*Profile, error) {
	var p Profile
	if err := yaml.UnmarshalStrict(text, &p); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	faults := slices.Concat(p.checkWeights(), p.checkPatterns())
	if p.Name == "" || p.Version < 1 {
		faults = append(faults, fmt.Errorf("name %q, version %d: want both", p.Name, p.Version))
	}
	if window, life := time.Duration(p.Window), time.Duration(p.HalfLife); window <= 0 || life < 0 ||
		life%time.Second != 0 {
		faults = append(faults, fmt.Errorf(
			"window %v, halfLife %v: want a positive window, and a half-life of whole seconds", window, life,
		))
	}
	for _, b := range []Bounds{p.Levels, p.Company.Levels} {
		if !b.rise() {
			faults = append(faults, fmt.Errorf(
				"levels %v, %v, %v: want them rising inside 0 to 1", b.Medium.Float(), b.High.Float(), b.Critical.Float(),
			))
		}
	}
	if s := p.Company.Mean + p.Company.Max + p.Company.Share; s != 1e6 {
		faults = append(faults, fmt.Errorf("organisation: shares sum to %v, not 1", s.Float()))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("read profile %s: %w", p.Name, errors.Join(faults...))
	}
	return &p, nil
}

// checkWeights lists the faults of weights and severities.
func (p *Profile) checkWeights() (faults []error) {
	for _, r := range Roles {
		if _, ok := p.Weights[r]; !ok {
			faults = append(faults, fmt.Errorf("weights: no row for %s", r))
		}
	}
	rows := map[Role]Weights{"otherwise": p.Otherwise}
	maps.Copy(rows, p.Weights)
	for r, w := range rows {
		if s := w.Git + w.IAM + w.SIEM + w.Training; s != 1e6 {
			faults = append(faults, fmt.Errorf("weights of %s sum to %v, not 1", r, s.Float()))
		}
	}
	for v, a := range p.Severities {
		if a == 0 || a > 1e6 || v.Source().Group() == activity.Groups {
			faults = append(faults, fmt.Errorf("severity of %s: %v is outside 0 to 1, or the verb has no source", v, a.Float()))
		}
	}
	return faults
}

// checkPatterns lists the faults of patterns.
func (p *Profile) checkPatterns() (faults []error) {
	rule := &p.Patterns
	for _, m := range []Micro{rule.Compromised.Multiplier, rule.Insider.Multiplier, rule.Burnout.Multiplier} {
		if m < 1e6 {
			faults = append(faults, fmt.Errorf("multiplier %v: below 1", m.Float()))
		}
	}
	highest := max(rule.Compromised.Floor, rule.Insider.Floor, rule.Burnout.Floor)
	for i, s := range rule.Sequences {
		if err := s.validate(); err != nil {
			faults = append(faults, err)
		}
		if slices.ContainsFunc(rule.Sequences[:i], func(x Sequence) bool { return x.Name == s.Name }) {
			faults = append(faults, fmt.Errorf("chains: %q stands twice", s.Name))
		}
		highest = max(highest, s.Floor)
	}
	if highest+rule.Slope > 1e6 {
		faults = append(faults, fmt.Errorf("floor %v with slope %v: above 1", highest.Float(), rule.Slope.Float()))
	}
	if c := rule.Compromised.IAMCounts; c != "all" && c != "risky" {
		faults = append(faults, fmt.Errorf("iamCounts %q: want all or risky", c))
	}
	return faults
}

// weights are those of a role, or the otherwise row.
func (p *Profile) weights(r Role) Weights {
	if w, ok := p.Weights[r]; ok {
		return w
	}
	return p.Otherwise
}

// Level is the level of a person with this score.
func (p *Profile) Level(s Score) Level { return p.Levels.level(s) }
