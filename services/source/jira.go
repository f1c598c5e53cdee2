package source

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/activity"
)

// Jira Cloud webhooks. Shapes from https://developer.atlassian.com/cloud/jira/platform/webhooks/.
var jira = Row{
	Source: activity.Jira,
	Pushed: []Push{{
		Route:    "POST /webhooks/jira",
		Verify:   verifyHMAC("X-Hub-Signature"),
		Delivery: func(h http.Header) string { return h.Get("X-Atlassian-Webhook-Identifier") }, // the same on every retry
		Split: func(_ http.Header, body []byte) ([]Record, error) {
			return []Record{{Kind: "webhook", Body: body}}, nil
		},
		Status:   http.StatusAccepted,
		Accepted: `{"message":"accepted"}`,
	}},
	Events: jiraEvents,
}

// JiraUser is a person in Jira. The address is often hidden; the accountId is the key.
type JiraUser struct {
	Self         string `json:"self"`
	AccountID    string `json:"accountId"`
	DisplayName  string `json:"displayName"`
	EmailAddress string `json:"emailAddress,omitempty"`
	Active       bool   `json:"active"`
	TimeZone     string `json:"timeZone,omitempty"` // "Europe/Berlin"
	AccountType  string `json:"accountType"`
}

// JiraTime is a time in Jira's layout: "2026-09-01T10:11:12.000+0200".
type JiraTime struct{ time.Time }

const jiraLayout = "2006-01-02T15:04:05.000-0700"

// MarshalJSON writes Jira's layout.
func (t JiraTime) MarshalJSON() ([]byte, error) { return []byte(t.Format(`"` + jiraLayout + `"`)), nil }

// UnmarshalJSON reads Jira's layout, and RFC 3339; null is no time.
func (t *JiraTime) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" || s == "" {
		return nil
	}
	v, err := time.Parse(jiraLayout, s)
	if err != nil {
		v, err = time.Parse(time.RFC3339, s)
	}
	t.Time = v
	return err
}

// JiraNamed is an object with a name: an issue type, a priority, a resolution.
type JiraNamed struct {
	Self string `json:"self"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

// JiraProject is the project.
type JiraProject struct {
	Self string `json:"self"`
	ID   string `json:"id"`
	Key  string `json:"key"`
	Name string `json:"name"`
}

// JiraStatus is a status with its category.
type JiraStatus struct {
	Self           string             `json:"self"`
	ID             string             `json:"id"`
	Name           string             `json:"name"`
	StatusCategory JiraStatusCategory `json:"statusCategory"`
}

// JiraStatusCategory has the key new, indeterminate or done.
type JiraStatusCategory struct {
	Self string `json:"self"`
	ID   int    `json:"id"`
	Key  string `json:"key"`
	Name string `json:"name"`
}

// JiraFields are an issue's fields.
type JiraFields struct {
	Summary    string      `json:"summary"`
	IssueType  JiraNamed   `json:"issuetype"`
	Project    JiraProject `json:"project"`
	Priority   JiraNamed   `json:"priority"`
	Status     JiraStatus  `json:"status"`
	Assignee   *JiraUser   `json:"assignee"`
	Reporter   *JiraUser   `json:"reporter"`
	Labels     []string    `json:"labels"`
	DueDate    string      `json:"duedate,omitempty"` // "2026-09-01"
	Resolution *JiraNamed  `json:"resolution"`
	Created    JiraTime    `json:"created"`
	Updated    JiraTime    `json:"updated"`
	// Environment is the resource to be exported, in an export request (label data-export). Every Jira site has this
	// field; a custom field would have a different number on each.
	Environment string `json:"environment,omitempty"`
}

// JiraIssue is an issue.
type JiraIssue struct {
	ID     string     `json:"id"`
	Self   string     `json:"self"`
	Key    string     `json:"key"`
	Fields JiraFields `json:"fields"`
}

// JiraChange is one changed field.
type JiraChange struct {
	Field      string  `json:"field"`
	FieldType  string  `json:"fieldtype"`
	FieldID    string  `json:"fieldId,omitempty"`
	From       *string `json:"from"`
	FromString *string `json:"fromString"`
	To         *string `json:"to"`
	ToString   *string `json:"toString"`
}

// JiraChangelog is what an update changed.
type JiraChangelog struct {
	ID    string       `json:"id"`
	Items []JiraChange `json:"items"`
}

// JiraWebhook is the body of a webhook.
type JiraWebhook struct {
	Timestamp          int64          `json:"timestamp"`    // ms since 1970
	WebhookEvent       string         `json:"webhookEvent"` // jira:issue_created, jira:issue_updated, jira:issue_deleted
	IssueEventTypeName string         `json:"issue_event_type_name"`
	User               *JiraUser      `json:"user"`
	Issue              *JiraIssue     `json:"issue"`
	Changelog          *JiraChangelog `json:"changelog,omitempty"`
}

// Labels with a meaning for the collector.
const (
	JiraSecurityLabel = "security"    // security work: overdue counts
	JiraExportLabel   = "data-export" // a request to export data: its approval counts
)

// jiraEvents returns the events of one webhook. An update is jira.updated of the person who made it. Security work
// (label security) that is not done and whose duedate is before the day of the webhook is overdue work of the assignee.
// Its id consists of issue and duedate, so it begins once for any number of updates; status done ends it. An export
// request (label data-export) that moves to Approved is an approval for the reporter.
func jiraEvents(r Record, _ Memory) ([]activity.Event, error) {
	var w JiraWebhook
	if err := decode("webhook", r.Body, &w); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(w.WebhookEvent, "jira:issue_") {
		return nil, nil // comments, sprints, …
	}
	if w.Issue == nil || w.Issue.ID == "" || w.Issue.Key == "" || w.Timestamp <= 0 {
		return nil, fmt.Errorf("read webhook: timestamp, issue.id and issue.key are required")
	}
	if w.WebhookEvent == "jira:issue_deleted" {
		return nil, nil
	}
	f := w.Issue.Fields
	at := time.UnixMilli(w.Timestamp).UTC()
	if d := f.Updated.Sub(at); !f.Updated.IsZero() && d > -time.Second && d < time.Second {
		at = at.In(f.Updated.Location()) // the same time, with the person's offset
	}
	change := fmt.Sprintf("%s/%d", w.Issue.ID, w.Timestamp) // a creation has no changelog
	if w.Changelog != nil && w.Changelog.ID != "" {
		change = w.Changelog.ID
	}

	var events []activity.Event
	add := func(verb activity.Verb, id string, who *JiraUser, detail string) *activity.Event {
		if who == nil {
			return nil
		}
		list := accounts("jira", who.AccountID, "email", who.EmailAddress)
		if len(list) == 0 {
			return nil
		}
		events = append(events, activity.Event{
			ID: "jira:" + printable(id), At: at, Accounts: list, Source: activity.Jira, Verb: verb,
			Ticket: printable(w.Issue.Key), Detail: detail,
		})
		return &events[len(events)-1]
	}
	add(activity.TicketUpdated, change+"/updated", w.User, line("%s: %s", w.Issue.Key, f.Summary))

	owner := f.Assignee
	if owner == nil {
		owner = f.Reporter
	}
	done := f.Status.StatusCategory.Key == "done"
	if slices.Contains(f.Labels, JiraSecurityLabel) {
		switch {
		case done && w.Changelog != nil && changedTo(w.Changelog, "status", "") != nil:
			add(activity.SecurityTicketClosed, change+"/closed", owner, line("%s: %s", w.Issue.Key, f.Summary))
		case !done && f.DueDate != "":
			due, err := time.Parse(time.DateOnly, f.DueDate)
			if err != nil {
				return nil, fmt.Errorf("read webhook: duedate %.40q: want YYYY-MM-DD", f.DueDate)
			}
			if f.DueDate < at.Format(time.DateOnly) {
				add(activity.OverdueSecurityTicket, w.Issue.ID+"/overdue/"+due.Format(time.DateOnly), owner,
					line("%s: %s, due %s", w.Issue.Key, f.Summary, f.DueDate))
			}
		}
	}
	if slices.Contains(f.Labels, JiraExportLabel) && f.Environment != "" &&
		w.Changelog != nil && changedTo(w.Changelog, "status", "Approved") != nil {
		who := f.Reporter
		if who == nil {
			who = f.Assignee
		}
		detail := line("%s: export of %s approved", w.Issue.Key, f.Environment)
		if e := add(activity.ExportApproved, change+"/export", who, detail); e != nil {
			e.Resource = line("%s", f.Environment)
		}
	}
	return checked("webhook", events)
}

// changedTo is the item that changed field to the given value, or to any value if to is empty; nil if there is none.
func changedTo(c *JiraChangelog, field, to string) *JiraChange {
	for i, item := range c.Items {
		if item.Field == field && (to == "" || item.ToString != nil && *item.ToString == to) {
			return &c.Items[i]
		}
	}
	return nil
}

// NewJiraUser is the user with what Jira derives.
func NewJiraUser(accountID, name, email, zone string) JiraUser {
	return JiraUser{
		Self: "https://example.atlassian.net/rest/api/2/user?accountId=" + accountID, AccountID: accountID,
		DisplayName: name, EmailAddress: email, Active: true, TimeZone: zone, AccountType: "atlassian",
	}
}

// NewJiraStatus is a status of the simplest workflow: new "To Do", indeterminate "In Progress" or "Approved", done
// "Done".
func NewJiraStatus(category, name string) JiraStatus {
	number := map[string]int{"new": 2, "indeterminate": 4, "done": 3}[category]
	id := strconv.Itoa(10000 + number)
	return JiraStatus{
		Self: "https://example.atlassian.net/rest/api/2/status/" + id, ID: id, Name: name,
		StatusCategory: JiraStatusCategory{
			Self: "https://example.atlassian.net/rest/api/2/statuscategory/" + strconv.Itoa(number),
			ID:   number, Key: category, Name: name,
		},
	}
}
