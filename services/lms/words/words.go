// Package words has the texts that several pages of the learning system share: plurals, durations, and the names of
// levels, roles, sources, modules and escalations.
package words

import (
	"fmt"
	"math"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// ReportModule is the module that a person passes by reporting a message of a phishing campaign.
const ReportModule = "phishing-drill"

// Location returns a time zone by its IANA name; UTC if it is unknown.
func Location(zone string) *time.Location {
	if loc, err := time.LoadLocation(zone); err == nil {
		return loc
	}
	return time.UTC
}

// Spaced replaces the underscores and dots of a code by spaces.
var Spaced = strings.NewReplacer("_", " ", ".", " ")

// Plural is n with its noun: "1 day", "2 days".
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Sentence returns s with its first letter, an ASCII one, in upper case.
func Sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Signed formats a part of a score, given in millionths, with its sign and three decimals.
func Signed(micro int64) string {
	s := fmt.Sprintf("%+.3f", float64(micro)/1e6)
	return strings.Replace(s, "-", "−", 1)
}

// GroupNames are the names of the groups of sources, indexed by activity.Group.
var GroupNames = [activity.Groups]string{"Code", "Access", "Alerts", "Training"}

// SourceName is the name of a source's group, or the source's own name if it belongs to no group.
func SourceName(s activity.Source) string {
	if g := s.Group(); g < activity.Groups {
		return GroupNames[g]
	}
	return Sentence(string(s))
}

// LevelName is the name of a level: "Medium".
func LevelName(l risk.Level) string { return Sentence(strings.ToLower(string(l))) }

// RoleName is the name of a role: "DevOps engineer".
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

// ModuleTitle is the title of a training module, or its id if the catalogue does not list it.
func ModuleTitle(id string) string {
	if m, ok := risk.ModuleByID(id); ok {
		return m.Title
	}
	if id == ReportModule {
		return "Report a drill's mail"
	}
	return id
}

// Span is a duration in words, in the largest unit of which there are two: "3 hours". A negative one is zero.
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

// SignalBar is one of the four SVG bars that show a level without colour. Sizes are in pixels.
type SignalBar struct {
	X, Y, H int
	Class   string
}

// Signal draws a level as four bars. The class of a bar is "on" up to the level, else "off".
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
