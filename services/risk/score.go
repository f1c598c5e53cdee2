package risk

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Score is a risk in [0, 1], in whole 1e-12. In JSON it is a decimal number such as 0.647012345678, read back exactly.
type Score int64

// One is the highest score.
const One Score = 1_000_000_000_000

// Float is the score as a number in [0, 1].
func (s Score) Float() float64 { return float64(s) / float64(One) }

// Micro is the score in whole millionths, half up; contributions sum to it.
func (s Score) Micro() int64 { return (int64(s) + 500_000) / 1_000_000 }

// String is the score with three decimals.
func (s Score) String() string { return strconv.FormatFloat(s.Float(), 'f', 3, 64) }

// MarshalJSON writes the score as an exact decimal number.
func (s Score) MarshalJSON() ([]byte, error) {
	if s < 0 || s > One {
		return nil, fmt.Errorf("encode score %d: outside 0 to 1", int64(s))
	}
	text := fmt.Sprintf("%d.%012d", s/One, s%One)
	text = strings.TrimRight(text, "0")
	return []byte(strings.TrimSuffix(text, ".")), nil
}

// UnmarshalJSON reads a decimal number in [0, 1] of at most 12 decimals.
func (s *Score) UnmarshalJSON(b []byte) error {
	v, err := decimal(string(b), 12)
	if err != nil {
		return fmt.Errorf("decode score: %w", err)
	}
	if v < 0 || v > int64(One) {
		return fmt.Errorf("decode score: %s is outside 0 to 1", b)
	}
	*s = Score(v)
	return nil
}

// decimal reads a JSON number as whole 10^-digits, and refuses one that does not fit exactly.
func decimal(text string, digits int) (int64, error) {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)))
	if !r.IsInt() || !r.Num().IsInt64() {
		return 0, fmt.Errorf("%s has more than %d decimals, or is too large", text, digits)
	}
	return r.Num().Int64(), nil
}

// Level is a band of scores.
type Level string

// The four levels, rising.
const (
	Low      Level = "LOW"
	Medium   Level = "MEDIUM"
	High     Level = "HIGH"
	Critical Level = "CRITICAL"
)

// Levels lists the levels, rising.
var Levels = []Level{Low, Medium, High, Critical}

// Rank is 0 for LOW to 3 for CRITICAL, and −1 for a word that is no level.
func (l Level) Rank() int { return slices.Index(Levels, l) }

// Frequency is how often a person is to be trained.
type Frequency string

// The frequencies, in the order of the levels.
const (
	Quarterly Frequency = "QUARTERLY"
	Monthly   Frequency = "MONTHLY"
	Weekly    Frequency = "WEEKLY"
	Immediate Frequency = "IMMEDIATE"
)

// Frequency is the training frequency of a person at this level.
func (l Level) Frequency() Frequency {
	switch l {
	case Critical:
		return Immediate
	case High:
		return Weekly
	case Medium:
		return Monthly
	default:
		return Quarterly
	}
}

// Days is how many days a person may wait for the next training.
func (f Frequency) Days() int {
	switch f {
	case Immediate:
		return 1
	case Weekly:
		return 7
	case Monthly:
		return 30
	default:
		return 90
	}
}

// Escalation says who is told that a training has not been done.
type Escalation string

// Escalations, rising. Before the training is due, no one is told.
const (
	ToNoOne    Escalation = ""
	ToPerson   Escalation = "person"
	ToManager  Escalation = "manager"
	ToSecurity Escalation = "security"
)

// Escalations lists the escalations, rising. Each one comes after those before it.
var Escalations = []Escalation{ToNoOne, ToPerson, ToManager, ToSecurity}

// Rank is 0 for ToNoOne to 3 for ToSecurity, and −1 for a word that is no escalation.
func (e Escalation) Rank() int { return slices.Index(Escalations, e) }

// Escalate says who is told at τ of a training that was due: the person at once, the manager when it is late by half
// of its interval and at least a day, the security team by a whole interval and at least two days.
func (f Frequency) Escalate(due, at time.Time) Escalation {
	interval := time.Duration(f.Days()) * 24 * time.Hour
	switch late := at.Sub(due); {
	case late < 0:
		return ToNoOne
	case late < max(interval/2, 24*time.Hour):
		return ToPerson
	case late < max(interval, 48*time.Hour):
		return ToManager
	}
	return ToSecurity
}
