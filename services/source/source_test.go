package source

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/env/needtest"
)

type memory map[string][]byte

func (m memory) Get(k string) []byte    { return m[k] }
func (m memory) Put(k string, v []byte) { m[k] = v }
func (m memory) Delete(k string)        { delete(m, k) }

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// means gives the verbs and ids of what a record means.
func means(t *testing.T, row Row, m Memory, kind string, v any) []activity.Event {
	t.Helper()
	events, err := row.Events(Record{Kind: kind, Body: Scrub(encode(t, v))}, m)
	if err != nil {
		t.Fatalf("events of %s: %v", kind, err)
	}
	return events
}

func verbs(events []activity.Event) []activity.Verb {
	var list []activity.Verb
	for _, e := range events {
		list = append(list, e.Verb)
	}
	slices.Sort(list)
	return list
}

func only(t *testing.T, events []activity.Event, verb activity.Verb) activity.Event {
	t.Helper()
	var found []activity.Event
	for _, e := range events {
		if e.Verb == verb {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d events of %s, want 1: %v", len(found), verb, verbs(events))
	}
	return found[0]
}

var berlin = time.FixedZone("", 2*3600)
var evening = time.Date(2026, 9, 12, 22, 14, 5, 0, berlin) // a Saturday

func push(sha, ref string, files ...string) GitPush {
	c := GitCommit{ID: sha, TreeID: "t", Distinct: true, Message: "tidy up", Timestamp: evening,
		Author: GitAuthor{Name: "Mira", Email: "mira@example.org", Username: "mira-k"}, Added: files}
	return GitPush{Ref: ref, Before: strings.Repeat("1", 40), After: sha, Commits: []GitCommit{c}, HeadCommit: &c,
		Repository: NewGitRepository("example", "payments", 7, evening),
		Pusher:     GitAuthor{Name: "mira-k"}, Sender: NewGitUser("mira-k", 9)}
}

func location(sha string) GitSecretScanningAlertLocation {
	return GitSecretScanningAlertLocation{Action: "created", Alert: GitSecretAlert{Number: 3,
		SecretType: "aws_access_key_id", Secret: "AKIAIOSFODNN7EXAMPLE"},
		Location:   GitLocation{Type: "commit", Details: GitLocationDetails{Path: "config/prod.env", CommitSHA: sha}},
		Repository: NewGitRepository("example", "payments", 7, evening)}
}

func TestSecretIsItsAuthorsWhateverComesFirst(t *testing.T) {
	want := activity.Event{ID: "git:secret/payments/3/abc", At: evening, Accounts: []string{"github:mira-k",
		"email:mira@example.org"}, Source: activity.Git,
		Verb: activity.SecretCommitted, Detail: "payments: config/prod.env (aws_access_key_id)"}
	for _, order := range []string{"push first", "alert first"} {
		m := memory{}
		var events []activity.Event
		if order == "alert first" {
			events = append(events, means(t, git, m, "secret_scanning_alert_location", location("abc"))...)
			if len(events) != 0 {
				t.Fatalf("%s: an alert without an author gave %v", order, verbs(events))
			}
			// A redelivered alert waits once.
			means(t, git, m, "secret_scanning_alert_location", location("abc"))
		}
		events = append(events, means(t, git, m, "push", push("abc", "refs/heads/topic", "config/prod.env"))...)
		if order == "push first" {
			events = append(events, means(t, git, m, "secret_scanning_alert_location", location("abc"))...)
		}
		got := only(t, events, activity.SecretCommitted)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", order, diff)
		}
		if _, offset := got.At.Zone(); offset != 2*3600 {
			t.Errorf("%s: the author's offset was lost: %v", order, got.At)
		}
		for k := range m {
			if strings.HasPrefix(k, "await") {
				t.Errorf("%s: %s still waits", order, k)
			}
		}
	}
}

func TestVulnerableDependencyIsWhoeverLastChangedTheManifestBeforeTheAlert(t *testing.T) {
	alert := GitDependabotAlert{Action: "created", Alert: GitDependabot{Number: 8,
		Dependency: GitDependency{ManifestPath: "web/package.json"}, CreatedAt: evening.Add(time.Minute)},
		Repository: NewGitRepository("example", "payments", 7, evening)}
	later := push("later", "refs/heads/topic", "web/package.json")
	later.Commits[0].Timestamp = evening.Add(time.Hour)
	later.Commits[0].Author = GitAuthor{Username: "tomas"}
	for _, order := range [][]any{{push("a", "refs/heads/topic", "web/package.json"), later, alert},
		{alert, later, push("a", "refs/heads/topic", "web/package.json")}} {
		m := memory{}
		var events []activity.Event
		for _, r := range order {
			kind := "push"
			if _, ok := r.(GitDependabotAlert); ok {
				kind = "dependabot_alert"
			}
			events = append(events, means(t, git, m, kind, r)...)
		}
		if got := only(t, events, activity.VulnerableDependency); got.Accounts[0] != "github:mira-k" ||
			got.ID != "git:dependabot/payments/8" {
			t.Errorf("got %+v, want mira's", got)
		}
	}
}

func TestCommitOnTheDefaultBranchNeedsSomebodyElsesReview(t *testing.T) {
	review := func(by string) GitPullRequestReview {
		return GitPullRequestReview{Action: "submitted", Review: GitReview{ID: 5, User: NewGitUser(by, 4), CommitID: "abc",
			SubmittedAt: evening, State: "approved"},
			PullRequest: GitPullRequest{Number: 12, User: NewGitUser("mira-k", 9)}, Repository: NewGitRepository("example",
				"payments", 7, evening)}
	}
	for _, c := range []struct {
		name, ref, reviewer string
		unreviewed          int
	}{
		{"no review", "refs/heads/main", "", 1}, {"own review", "refs/heads/main", "mira-k", 1},
		{"reviewed", "refs/heads/main", "tomas", 0}, {"topic branch", "refs/heads/topic", "", 0},
	} {
		m := memory{}
		if c.reviewer != "" {
			only(t, means(t, git, m, "pull_request_review", review(c.reviewer)), activity.ReviewSubmitted)
		}
		got := 0
		for _, e := range means(t, git, m, "push", push("abc", c.ref, "a.go")) {
			if e.Verb == activity.UnreviewedCommit {
				got++
			}
		}
		if got != c.unreviewed {
			t.Errorf("%s: %d unreviewed commits, want %d", c.name, got, c.unreviewed)
		}
	}
}

func TestPushSaysForceAndLargeFiles(t *testing.T) {
	p := push("abc", "refs/heads/topic", "dump/customers.dump")
	p.Forced = true
	got := verbs(means(t, git, memory{}, "push", p))
	if diff := cmp.Diff([]activity.Verb{activity.Commit, activity.ForcePush, activity.LargeFile, activity.Push},
		got); diff != "" {
		t.Error(diff)
	}
	p.Deleted = true
	if got := means(t, git, memory{}, "push", p); len(got) != 0 {
		t.Errorf("a deleted branch gave %v", verbs(got))
	}
}

func issue(category, name, due string, labels ...string) JiraWebhook {
	mira := NewJiraUser("5b10a", "Mira", "mira@example.org", "Europe/Berlin")
	status := "Approved"
	return JiraWebhook{Timestamp: evening.UnixMilli(), WebhookEvent: "jira:issue_updated", User: &mira,
		Changelog: &JiraChangelog{ID: "77", Items: []JiraChange{{Field: "status", ToString: &status}}},
		Issue: &JiraIssue{ID: "10042", Key: "SEC-42", Fields: JiraFields{Summary: "Rotate the key",
			Status: NewJiraStatus(category, name), Labels: labels, DueDate: due,
			Assignee: &mira, Reporter: &mira, Updated: JiraTime{evening}, Environment: "s3://customers"}}}
}

func TestOverdueSecurityWorkBeginsOnceAndEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		w    JiraWebhook
		want []activity.Verb
	}{
		{"overdue", issue("new", "To Do", "2026-09-11", "security"), []activity.Verb{activity.OverdueSecurityTicket,
			activity.TicketUpdated}},
		{"due today", issue("new", "To Do", "2026-09-12", "security"), []activity.Verb{activity.TicketUpdated}},
		{"not security", issue("new", "To Do", "2026-09-11"), []activity.Verb{activity.TicketUpdated}},
		{"done", issue("done", "Done", "2026-09-11", "security"), []activity.Verb{activity.SecurityTicketClosed,
			activity.TicketUpdated}},
		{"approved export", issue("indeterminate", "Approved", "", "data-export"), []activity.Verb{activity.ExportApproved,
			activity.TicketUpdated}},
	} {
		got := means(t, jira, memory{}, "webhook", c.w)
		if diff := cmp.Diff(c.want, verbs(got)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		for _, e := range got {
			if _, offset := e.At.Zone(); offset != 7200 || !e.At.Equal(evening) || e.Ticket != "SEC-42" {
				t.Errorf("%s: at %v, ticket %q", c.name, e.At, e.Ticket)
			}
			if e.Verb == activity.ExportApproved && e.Resource != "s3://customers" {
				t.Errorf("%s: resource %q", c.name, e.Resource)
			}
		}
	}
	a, b := issue("new", "To Do", "2026-09-11", "security"), issue("new", "To Do", "2026-09-11", "security")
	b.Timestamp += 86400e3
	b.Changelog.ID = "78"
	first := only(t, means(t, jira, memory{}, "webhook", a), activity.OverdueSecurityTicket)
	second := only(t, means(t, jira, memory{}, "webhook", b), activity.OverdueSecurityTicket)
	if first.ID != second.ID {
		t.Errorf("two updates of one overdue ticket have two ids: %s, %s", first.ID, second.ID)
	}
}

func okta(kind string, at time.Time, sensitivity string) OktaEvent {
	return OktaEvent{UUID: "u-1", EventType: kind, Published: at.UTC(), Actor: OktaActor{Type: "User",
		AlternateID: "mira@example.org"}, Outcome: OktaOutcome{Result: "SUCCESS"},
		DebugContext:   OktaDebug{map[string]string{OktaLocalTime: at.Format(time.RFC3339)}},
		DisplayMessage: "User accessing app",
		Target: []OktaActor{{Type: "AppInstance", DisplayName: "vault",
			DetailEntry: map[string]string{OktaSensitivity: sensitivity}}}}
}

func TestOffHoursIsByThePersonsOwnClock(t *testing.T) {
	monday := func(hour int) time.Time { return time.Date(2026, 9, 14, hour, 30, 0, 0, berlin) }
	for _, c := range []struct {
		name        string
		at          time.Time
		sensitivity string
		want        int
	}{
		{"6:30", monday(6), "restricted", 1}, {"7:30", monday(7), "restricted", 0}, {"19:30", monday(19), "restricted", 0},
		{"20:30", monday(20), "restricted", 1},
		{"saturday noon", evening.Add(-10 * time.Hour), "restricted", 1}, {"at night, nothing restricted", monday(2), "", 0},
	} {
		got := means(t, iam, nil, "okta", okta("user.authentication.sso", c.at, c.sensitivity))
		if len(got) != c.want {
			t.Errorf("%s: %v, want %d", c.name, verbs(got), c.want)
		}
	}
	inside := okta("user.authentication.sso", monday(2), "restricted")
	inside.DebugContext.DebugData[OktaAccessWindow] = "inside"
	if got := means(t, iam, nil, "okta", inside); len(got) != 0 {
		t.Errorf("the sign-on policy's own finding was not heeded: %v", verbs(got))
	}
	failed := okta("user.session.start", monday(2), "restricted")
	failed.Outcome.Result = "FAILURE"
	if got := means(t, iam, nil, "okta", failed); len(got) != 0 {
		t.Errorf("a failed sign-in gave %v", verbs(got))
	}
}

func TestCloudTrailCallsMeanWhatTheyDid(t *testing.T) {
	record := func(name string, change func(*CloudTrail)) CloudTrail {
		c := CloudTrail{EventVersion: "1.11", EventID: "e-1", EventName: name, EventTime: evening, EventType: "AwsApiCall",
			RecipientAccountID: "111",
			UserIdentity:       CloudTrailIdentity{Type: "IAMUser", AccountID: "111", UserName: "mira"}}
		if change != nil {
			change(&c)
		}
		return c
	}
	foreign := func(c *CloudTrail) { c.RecipientAccountID = "222" }
	for _, c := range []struct {
		record CloudTrail
		want   []activity.Verb
	}{
		{record("AttachUserPolicy", nil), []activity.Verb{activity.PrivilegeEscalation}},
		{record("CreateAccessKey", nil), []activity.Verb{activity.ServiceAccountKey}},
		{record("CreateAccessKey", func(c *CloudTrail) { c.ErrorCode = "AccessDenied" }), nil},
		{record("AssumeRole", nil), nil},
		{record("AssumeRole", foreign), []activity.Verb{activity.CrossAccountAccess}},
		{record("AttachUserPolicy", foreign), []activity.Verb{activity.CrossAccountAccess, activity.PrivilegeEscalation}},
		{record("DescribeInstances", nil), nil},
		{record("GetObject", func(c *CloudTrail) {
			c.RequestParameters, c.AdditionalEventData = []byte(`{"bucketName":"customers","key":"all.csv"}`),
				[]byte(`{"bytesTransferredOut":2147483648}`)
		}), []activity.Verb{activity.DataExport}},
		{record("UnusedAccessFinding", func(c *CloudTrail) {
			c.EventType, c.EventSource = "AwsServiceEvent", "access-analyzer.amazonaws.com"
			c.ServiceEventDetails = []byte(
				`{"findingType":"UnusedPermission","resource":"arn:aws:iam::111:user/mira","status":"ACTIVE"}`)
		}), []activity.Verb{activity.UnusedPermission}},
	} {
		got := means(t, iam, nil, "cloudtrail", c.record)
		if diff := cmp.Diff(c.want, verbs(got)); diff != "" {
			t.Errorf("%s: %s", c.record.EventName, diff)
		}
		ids := map[string]bool{}
		for _, e := range got {
			ids[e.ID] = true
			if e.Accounts[0] != "aws:mira" {
				t.Errorf("%s: accounts %v", c.record.EventName, e.Accounts)
			}
			if e.Verb == activity.DataExport && (e.Bytes != 2<<30 || e.Resource != "s3://customers") {
				t.Errorf("export: %d bytes of %q", e.Bytes, e.Resource)
			}
		}
		if len(ids) != len(got) {
			t.Errorf("%s: %d events share %d ids", c.record.EventName, len(got), len(ids))
		}
	}
}

func TestFindingsAreReadByTypeOrTechnique(t *testing.T) {
	finding := func(change func(*Finding)) HEC {
		offset := 120
		f := Finding{ActivityID: 1, ClassUID: 2004, TypeUID: 200401, Time: evening.UnixMilli(), TimezoneOffset: &offset,
			FindingInfo: OCSFFindingInfo{UID: "f-1", Title: "x"},
			Evidences:   []OCSFEvidence{{Actor: &OCSFActor{User: &OCSFUser{EmailAddr: "mira@example.org"}}}}}
		change(&f)
		return HEC{Event: f}
	}
	for _, k := range FindingKinds {
		got := means(t, siem, nil, "HEC envelope", finding(func(f *Finding) { f.FindingInfo.Types = []string{k.Type} }))
		if len(got) != 1 || got[0].Verb != k.Verb || got[0].At.Format(time.RFC3339) != "2026-09-12T22:14:05+02:00" {
			t.Errorf("%s: got %+v", k.Type, got)
		}
	}
	byTechnique := means(t, siem, nil, "", finding(func(f *Finding) {
		f.FindingInfo.Attacks = []OCSFAttack{{Technique: &OCSFName{UID: "T1566.002"}}}
	}))
	only(t, byTechnique, activity.PhishingClick)
	for name, change := range map[string]func(*Finding){
		"an update": func(f *Finding) { f.ActivityID, f.TypeUID, f.FindingInfo.Types = 2, 200402, []string{"Malware"} },
		"suppressed": func(f *Finding) {
			f.StatusID, f.FindingInfo.Types = 3, []string{"Malware"}
		},
		"another class": func(f *Finding) { f.ClassUID, f.TypeUID = 3002, 300201 },
		"unknown kind":  func(f *Finding) { f.FindingInfo.Types = []string{"Weather"} },
	} {
		if got := means(t, siem, nil, "", finding(change)); len(got) != 0 {
			t.Errorf("%s gave %v", name, verbs(got))
		}
	}
}

func TestForeignSignatureIsRefused(t *testing.T) {
	body, secret := []byte(`{"zen":"x"}`), []byte("s3cr3t")
	for _, c := range []struct {
		row            Row
		header, prefix string
		good           string
	}{
		{git, "X-Hub-Signature-256", "", Sign(secret, body)}, {jira, "X-Hub-Signature", "", Sign(secret, body)},
		{siem, "Authorization", "", "Splunk s3cr3t"},
	} {
		verify := c.row.Pushed[0].Verify
		if err := verify(secret, http.Header{c.header: {c.good}}, body); err != nil {
			t.Errorf("%s: its own signature: %v", c.row.Source, err)
		}
		for _, bad := range []string{"", "sha256=", c.good[:len(c.good)-1], c.good + "0", Sign([]byte("old"), body),
			"Splunk ", "Splunk other", "Bearer s3cr3t"} {
			if err := verify(secret, http.Header{c.header: {bad}}, body); err == nil {
				t.Errorf("%s: %s %q was accepted", c.row.Source, c.header, bad)
			}
		}
		if c.row.Source != activity.SIEM {
			if err := verify(secret, http.Header{c.header: {c.good}}, append([]byte(" "), body...)); err == nil {
				t.Errorf("%s: a changed body was accepted", c.row.Source)
			}
		}
	}
}

func TestScrubTakesSecretsAndLeavesJSON(t *testing.T) {
	key := "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ\n-----END RSA PRIVATE KEY-----"
	secrets := []string{"AKIAIOSFODNN7EXAMPLE", "ghp_0123456789abcdefghijABCDEFGHIJ012345", "MIIEvQ",
		"bearerTokenThatIsLong", "hunter2hunter2", "xoxb-123456789012-abcdef", "alert's own \\\" secret"}
	body := encode(t, map[string]any{"message": "use AKIAIOSFODNN7EXAMPLE and ghp_0123456789abcdefghijABCDEFGHIJ012345",
		"key": key, "half": "-----BEGIN PRIVATE KEY-----\nMIIEvQ",
		"auth": "Authorization: Bearer bearerTokenThatIsLong", "url": "postgres://mira:hunter2hunter2@db/payments",
		"chat":  "xoxb-123456789012-abcdef",
		"alert": map[string]string{"secret": `alert's own " secret`}, "mail": "mira@example.org",
		"ssh": "git@github.com:example/payments.git", "web": "https://example.org:8443/a@b"})
	got := Scrub(body)
	if !json.Valid(got) {
		t.Fatalf("not JSON any more: %s", got)
	}
	for _, s := range secrets {
		if strings.Contains(string(got), s) {
			t.Errorf("%q survived: %s", s, got)
		}
	}
	for _, s := range []string{"mira@example.org", "git@github.com:example/payments.git", "https://example.org:8443/a@b",
		"postgres://mira:" + Scrubbed + "@db"} {
		if !strings.Contains(string(got), s) {
			t.Errorf("%q was taken as well: %s", s, got)
		}
	}
	// A token that only shows once the JSON is decoded does not reach an event either.
	p := push("abc", "refs/heads/topic", "x")
	raw := strings.Replace(string(encode(t, p)), `"added":["x"]`, `"added":["\u0041KIAIOSFODNN7EXAMPLE"]`, 1)
	events, err := git.Events(Record{"push", Scrub([]byte(raw))}, memory{})
	if err != nil {
		t.Fatal(err)
	}
	if b := encode(t, events); strings.Contains(string(b), "AKIA") {
		t.Errorf("an escaped token reached an event: %s", b)
	}
}

// Ten thousand mutilated deliveries per source: an error or events that may be sent, never a panic, never JSON with a
// secret.
func TestMalformedDeliveriesNeitherPanicNorYieldBadEvents(t *testing.T) {
	needtest.Unhurried(t, "thousands of deliveries are spoilt at random")
	r := rand.New(rand.NewPCG(1, 2))
	good := map[activity.Source][]Record{
		activity.Git: {{"push", encode(t, push("abc", "refs/heads/main", "go.mod", "a.zip"))},
			{"secret_scanning_alert_location", encode(t, location("abc"))},
			{"dependabot_alert", encode(t, GitDependabotAlert{Action: "created", Alert: GitDependabot{Number: 1,
				Dependency: GitDependency{ManifestPath: "go.mod"}}, Repository: NewGitRepository("e", "payments", 1, evening)})},
			{"pull_request_review", encode(t, GitPullRequestReview{Action: "submitted", Review: GitReview{ID: 4,
				SubmittedAt: evening, State: "approved"}, Repository: NewGitRepository("e", "p", 1, evening)})}},
		activity.Jira: {{"webhook", encode(t, issue("new", "To Do", "2026-09-11", "security"))},
			{"webhook", encode(t, issue("indeterminate", "Approved", "", "data-export"))}},
		activity.IAM: {{"okta", encode(t, okta("user.session.start", evening, "restricted"))},
			{"cloudtrail", encode(t, CloudTrail{EventID: "1", EventName: "CreateAccessKey", EventTime: evening,
				UserIdentity: CloudTrailIdentity{UserName: "m"}})}},
		activity.SIEM: {{"HEC", encode(t, HEC{Time: 1.5, Event: Finding{ClassUID: 2004, ActivityID: 1, TypeUID: 200401,
			FindingInfo: OCSFFindingInfo{UID: "1", Types: []string{"Malware"}},
			Evidences:   []OCSFEvidence{{User: &OCSFUser{UID: "x"}}}}})}},
	}
	pieces := []string{"null", "{}", "[]", `""`, "-1", "1e999", "1e300", "0", `"\u0000"`, `"\ud800"`, "true",
		`"9999-99-99"`, `"0001-01-01T00:00:00Z"`, strings.Repeat("[", 200), `"` + strings.Repeat("é", 400) + `"`, "\xff"}
	accepted, refused := 0, 0
	for _, row := range Table {
		for range 10_000 {
			rec := good[row.Source][r.IntN(len(good[row.Source]))]
			body := slices.Clone(rec.Body)
			switch r.IntN(4) {
			case 0:
				body = body[:r.IntN(len(body))]
			case 1:
				for range 1 + r.IntN(8) {
					body[r.IntN(len(body))] = byte(r.IntN(256))
				}
			case 2: // another value in the place of one
				if i := strings.IndexByte(string(body[r.IntN(len(body)):]), ':'); i >= 0 {
					at := len(body) - len(body[i:]) + 1
					if end := strings.IndexAny(string(body[at:]), ",}"); end >= 0 {
						body = []byte(string(body[:at]) + pieces[r.IntN(len(pieces))] + string(body[at+end:]))
					}
				}
			case 3:
				i := r.IntN(len(body))
				body = []byte(string(body[:i]) + pieces[r.IntN(len(pieces))] + string(body[i:]))
			}
			for _, p := range row.Pushed {
				_, _ = p.Split(http.Header{"X-Github-Event": {rec.Kind}}, body)
			}
			events, err := row.Events(Record{rec.Kind, Scrub(body)}, memory{})
			if err != nil {
				refused++
				continue
			}
			accepted++
			for _, e := range events {
				if err := e.Validate(); err != nil {
					t.Fatalf("%s: %s gave an event that may not be sent: %v", row.Source, body, err)
				}
				if _, err := json.Marshal(e); err != nil {
					t.Fatalf("%s: %v", row.Source, err)
				}
			}
		}
	}
	if accepted < 1000 || refused < 1000 {
		t.Errorf("%d accepted, %d refused: the payloads were not mixed", accepted, refused)
	}
}

func TestEverySourceWithACollectorHasARow(t *testing.T) {
	for _, s := range []activity.Source{activity.Git, activity.Jira, activity.IAM, activity.SIEM} {
		if row, err := Find(s); err != nil || row.Events == nil || len(row.Pushed) == 0 {
			t.Errorf("%s: %+v, %v", s, row, err)
		}
	}
	if _, err := Find("hr"); err == nil {
		t.Error("a source without a row was found")
	}
}

func BenchmarkPush(b *testing.B) {
	body, _ := json.Marshal(push("abc", "refs/heads/topic", "a.go"))
	b.SetBytes(int64(len(body)))
	m := memory{}
	for b.Loop() {
		if err := git.Pushed[0].Verify([]byte("k"), http.Header{"X-Hub-Signature-256": {Sign([]byte("k"), body)}},
			body); err != nil {
			b.Fatal(err)
		}
		if _, err := git.Events(Record{"push", Scrub(body)}, m); err != nil {
			b.Fatal(err)
		}
	}
}
