package risk

import (
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// finding is the result of all patterns for one person.
type finding struct {
	multiplier Micro  // the largest that holds, else 1
	floor      Micro  // the highest that holds, else 0
	name       string // of the pattern with that floor, else with that multiplier; "" if none holds
	events     []*activity.Event
}

// candidates are the events in the window that patterns look at, by the part that they can play.
type candidates struct {
	all       []*activity.Event // only where the profile has sequences
	access    []*activity.Event // of source iam, as Compromised.IAMCounts has it
	alerts    []*activity.Event
	commits   []*activity.Event
	weekend   []*activity.Event // commits on a Saturday or Sunday
	pushes    []*activity.Event // forced
	tickets   []*activity.Event // overdue
	offHours  []*activity.Event
	transfers []*activity.Event // exports that are large enough
}

func (p *Profile) candidates(h *history) candidates {
	var c candidates
	begin := h.at.Add(-time.Duration(p.Window))
	for _, e := range h.events {
		if !e.At.After(begin) {
			continue
		}
		if len(p.Patterns.Sequences) > 0 {
			c.all = append(c.all, e)
		}
		switch e.Source {
		case activity.IAM:
			if p.Patterns.Compromised.IAMCounts == "all" || p.Severities[e.Verb] > 0 {
				c.access = append(c.access, e)
			}
		case activity.SIEM:
			c.alerts = append(c.alerts, e)
		}
		switch e.Verb {
		case activity.Commit:
			c.commits = append(c.commits, e)
			if d := e.At.Weekday(); d == time.Saturday || d == time.Sunday {
				c.weekend = append(c.weekend, e)
			}
		case activity.ForcePush:
			c.pushes = append(c.pushes, e)
		case activity.OverdueSecurityTicket:
			c.tickets = append(c.tickets, e)
		case activity.OffHoursAccess:
			c.offHours = append(c.offHours, e)
		case activity.DataExport:
			if e.Bytes >= p.Patterns.Insider.ExportBytes {
				c.transfers = append(c.transfers, e)
			}
		}
	}
	return c
}

// consider takes the multiplier and the floor of a pattern that holds, where they are higher than those before.
func (f *finding) consider(name string, m, floor Micro, events ...[]*activity.Event) {
	if floor > f.floor || f.floor == 0 && m > f.multiplier {
		f.name, f.events = name, slices.Concat(events...)
	}
	f.multiplier, f.floor = max(f.multiplier, m), max(f.floor, floor)
}

// pattern looks for every pattern of the profile in the window.
func (p *Profile) pattern(h *history) finding {
	c, best := p.candidates(h), finding{multiplier: 1e6}
	rule := &p.Patterns
	if r := rule.Compromised; len(c.commits) == 0 && len(c.access) > r.IAMOver && len(c.alerts) > r.SIEMOver {
		best.consider("compromised", r.Multiplier, r.Floor, c.access, c.alerts)
	}
	unapproved := slices.DeleteFunc(c.transfers, func(e *activity.Event) bool {
		return h.approved(e, time.Duration(rule.Insider.Approval))
	})
	if r := rule.Insider; len(c.offHours) > 0 && len(unapproved) > 0 {
		best.consider("insider", r.Multiplier, r.Floor, c.offHours, unapproved)
	}
	if r := rule.Burnout; len(c.pushes) > r.ForcePushesOver && len(c.tickets) > r.OverdueTicketsOver &&
		len(c.weekend) > 0 {
		best.consider("burnout", r.Multiplier, r.Floor, c.pushes, c.tickets, c.weekend)
	}
	if len(rule.Sequences) > 0 {
		sortByTime(c.all)
	}
	for _, s := range rule.Sequences {
		if s.Floor > best.floor {
			if found := s.find(c.all, h.events); found != nil {
				best.consider(s.Name, 1e6, s.Floor, found)
			}
		}
	}
	return best
}

// approved says whether an export of the resource was approved in [export − span, export). The approval may be older
// than the window.
func (h *history) approved(export *activity.Event, span time.Duration) bool {
	begin := export.At.Add(-span)
	return slices.ContainsFunc(h.events, func(e *activity.Event) bool {
		return e.Verb == activity.ExportApproved && e.Resource == export.Resource &&
			!e.At.Before(begin) && e.At.Before(export.At)
	})
}

// PatternWords says in plain English what a pattern of the profile means; "" for an unknown name.
func (p *Profile) PatternWords(name string) string {
	for _, q := range p.Patterns.Sequences {
		if q.Name == name {
			return q.Words
		}
	}
	return map[string]string{
		"compromised": "Many access events and alerts but no commits look like an account that another person uses.",
		"insider":     "Off-hours access and a large export without an approved ticket came together.",
		"burnout": "Forced pushes, overdue tickets and weekend work came together. " +
			"It is also a reason to talk about workload.",
	}[name]
}
