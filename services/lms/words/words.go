// Package words puts figures and codes into words, as the learning system's pages show them: plurals, durations, the
// names of levels, roles, sources and modules.
package words

import (
	"fmt"
	"math"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// DrillReported is the module that reporting the mail of a drill passes.
const DrillReported = "phishing-drill"

// Location is a time zone by its name; UTC where it is unknown.
func Location(zone string) *time.Location {
	if loc, err := time.LoadLocation(zone); err == nil {
		return loc
	}
	return time.UTC
}

// Spaced makes words of a code.
var Spaced = strings.NewReplacer("_", " ", ".", " ")

// Plural is a number with its noun.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Sentence begins with a capital letter.
func Sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Signed is a part of a score, in millionths, with its sign and three decimals.
func Signed(micro int64) string {
	s := fmt.Sprintf("%+.3f", float64(micro)/1e6)
	return strings.Replace(s, "-", "−", 1)
}

// GroupNames are the names of the groups of sources, by activity.Group.
var GroupNames = [activity.Groups]string{"Code", "Access", "Alerts", "Training"}

// SourceName is the name of the group that a source belongs to, or the source's own where it belongs to none.
func SourceName(s activity.Source) string {
	if g := s.Group(); g < activity.Groups {
		return GroupNames[g]
	}
	return Sentence(string(s))
}

// LevelName is a level in words.
func LevelName(l risk.Level) string { return Sentence(strings.ToLower(string(l))) }

// RoleName is a role in words.
func RoleName(r risk.Role) string {
	switch r {
	case risk.DevOpsEngineer:
		return "DevOps engineer"
	case risk.DevSecOpsEngineer:
		return "DevSecOps engineer"
	case risk.SRE:
		return "Site reliability engineer"
	}
	return Sentence(strings.ReplaceAll(string(r), "_", " "))
}

// ModuleTitle is the title of a training module; its id where it is in no catalogue.
func ModuleTitle(id string) string {
	if m, ok := risk.ModuleByID(id); ok {
		return m.Title
	}
	if id == DrillReported {
		return "Report a drill's mail"
	}
	return id
}

// Span is a duration in the largest unit that fits.
func Span(d time.Duration) string {
	switch d = max(d, 0); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(math.Round(d.Hours()/24)))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(math.Round(d.Hours())))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(math.Round(d.Minutes())))
	}
	return Plural(int(math.Ceil(d.Seconds())), "second", "seconds")
}

// SignalBar is one of four bars that show a level without colour.
type SignalBar struct {
	X, Y, H int
	Class   string
}

// Signal draws a level as four bars, of which so many are on.
func Signal(l risk.Level) []SignalBar {
	bars := make([]SignalBar, 4)
	for i := range bars {
		h := 4 + 3*i
		bars[i] = SignalBar{X: 4 * i, Y: 13 - h, H: h, Class: "off"}
		if i <= l.Rank() {
			bars[i].Class = "on"
		}
	}
	return bars
}
