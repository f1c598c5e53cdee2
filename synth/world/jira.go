package world

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

func jiraRecords(a routine.Act, p risk.Person, c cast) ([]record, error) {
	id := account(p, "jira")
	if id == "" {
		return nil, fmt.Errorf("act %s: %s has no account at jira", a.ID, p.ID)
	}
	me := source.NewJiraUser(id, p.Name, "", p.Zone) // the address is hidden, as usual in Jira
	who := me
	key := orElse(a.Ticket, fmt.Sprintf("SEC-%d", 1+number(a.ID)%9000))
	project, _, _ := strings.Cut(key, "-")
	kind := source.JiraNamed{Self: "https://example.atlassian.net/rest/api/2/issuetype/10001", ID: "10001", Name: "Task"}
	text := func(s string) *string { return &s }
	f := source.JiraFields{
		Summary: orElse(a.Detail, key), IssueType: kind, Status: source.NewJiraStatus("indeterminate", "In Progress"),
		Project: source.JiraProject{
			Self: "https://example.atlassian.net/rest/api/2/project/10000", ID: "10000", Key: project, Name: project,
		},
		Priority: source.JiraNamed{
			Self: "https://example.atlassian.net/rest/api/2/priority/2", ID: "2", Name: "High",
		},
		Assignee: &me, Reporter: &me, Labels: []string{}, Created: source.JiraTime{Time: a.At.AddDate(0, 0, -12)},
		Updated: source.JiraTime{Time: a.At.Truncate(time.Millisecond)},
	}
	changed := func(field, from, fromText, to, toText string) source.JiraChange {
		return source.JiraChange{
			Field: field, FieldType: "jira", FieldID: field,
			From: text(from), FromString: text(fromText), To: text(to), ToString: text(toText),
		}
	}
	status := func(from, to string) source.JiraChange { return changed("status", "10004", from, "10003", to) }
	change := changed("priority", "3", "Medium", "2", "High")
	switch a.Verb {
	case activity.TicketUpdated:
	case activity.OverdueSecurityTicket:
		f.Labels = []string{source.JiraSecurityLabel}
		f.DueDate = a.At.AddDate(0, 0, -1).Format(time.DateOnly)
	case activity.SecurityTicketClosed:
		f.Labels = []string{source.JiraSecurityLabel}
		f.Status = source.NewJiraStatus("done", "Done")
		f.Resolution = &source.JiraNamed{
			Self: "https://example.atlassian.net/rest/api/2/resolution/10000", ID: "10000", Name: "Done",
		}
		change = status("In Progress", "Done")
	case activity.ExportApproved:
		f.Labels = []string{source.JiraExportLabel}
		f.Status = source.NewJiraStatus("indeterminate", "Approved")
		f.Environment = orElse(a.Resource, defaultBucket)
		change = status("Waiting for approval", "Approved")
		if boss, ok := c[p.Manager]; ok && account(boss, "jira") != "" { // people do not approve their own requests
			who = source.NewJiraUser(account(boss, "jira"), boss.Name, "", boss.Zone)
		}
	default:
		return nil, unsupported(a)
	}
	w := &written{}
	issue := strconv.FormatInt(number("issue/"+key), 10)
	log := strconv.FormatInt(number("changelog/"+a.ID)*1000+number("minor/"+a.ID)%1000, 10)
	return w.add("webhook", source.JiraWebhook{
		Timestamp: a.At.UnixMilli(), WebhookEvent: "jira:issue_updated", IssueEventTypeName: "issue_generic", User: &who,
		Issue: &source.JiraIssue{
			ID: issue, Self: "https://example.atlassian.net/rest/api/2/issue/" + issue, Key: key, Fields: f,
		},
		Changelog: &source.JiraChangelog{ID: log, Items: []source.JiraChange{change}},
	}).list, w.err
}
