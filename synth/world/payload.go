package world

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

// SecretKinds are the kinds of secrets that a simulated commit can hold.
var SecretKinds = []string{"aws_access_key"}

// record is one thing that a vendor reports: Kind and Body as the collector's source.Record.
type record struct {
	source.Record
	polled bool // the vendor keeps it in a log until somebody asks (Okta)
}

// cast finds a person by id.
type cast map[string]risk.Person

// account is a person's account at system, "" if there is none.
func account(p risk.Person, system string) string {
	for _, a := range p.Accounts {
		if name, ok := strings.CutPrefix(a, system+":"); ok {
			return name
		}
	}
	return ""
}

// digest is a hash of an act for one purpose: every number that a vendor would give out is made of it.
func digest(a routine.Act, purpose string) [32]byte {
	return sha256.Sum256([]byte(purpose + "/" + a.ID))
}

func sha1Like(a routine.Act, purpose string) string {
	d := digest(a, purpose)
	return hex.EncodeToString(d[:20])
}

func number(s string) int64 {
	d := sha256.Sum256([]byte(s))
	n := int64(0)
	for _, b := range d[:5] {
		n = n<<8 | int64(b)
	}
	return n%900_000_000 + 100_000
}

// guid has the form of a version 4 UUID.
func guid(text string) string {
	d := sha256.Sum256([]byte(text))
	d[6], d[8] = d[6]&0x0f|0x40, d[8]&0x3f|0x80
	h := hex.EncodeToString(d[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// expand turns an act that happened Count times in a row into that many acts, seven seconds apart or, where that would be
// longer than a minute, within one: they are delivered together, and the scorer takes nothing that lies far ahead of its clock.
func expand(a routine.Act) []routine.Act {
	n := max(1, a.Count)
	a.Count = 0
	list := []routine.Act{a}
	apart := min(7*time.Second, time.Minute/time.Duration(n))
	for i := 1; i < n; i++ {
		b := a
		d := digest(a, "again "+strconv.Itoa(i))
		b.ID = hex.EncodeToString(d[:12])
		b.At = a.At.Add(time.Duration(i) * apart)
		list = append(list, b)
	}
	return list
}

// records are the traces that one act leaves at its source's vendor, in the order in which the vendor reports them.
func records(a routine.Act, c cast) ([]record, error) {
	p, ok := c[a.Person]
	if !ok {
		return nil, fmt.Errorf("act %s: nobody is called %q", a.ID, a.Person)
	}
	if v, ok := writers[a.Source]; ok {
		return v.records(a, p, c)
	}
	return nil, fmt.Errorf("act %s: source %q has no vendor", a.ID, a.Source)
}

// written collects records and the first fault of encoding them.
type written struct {
	list []record
	err  error
}

func (w *written) add(kind string, v any) *written {
	b, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("write %s: %w", kind, err)
	}
	w.list = append(w.list, record{Record: source.Record{Kind: kind, Body: b}})
	return w
}

func (w *written) keep(kind string, v any) *written {
	w.add(kind, v)
	w.list[len(w.list)-1].polled = true
	return w
}

func unsupported(a routine.Act) error {
	return fmt.Errorf("act %s: no vendor of %s reports %q", a.ID, a.Source, a.Verb)
}

const organisation = "example-org"

func gitRecords(a routine.Act, p risk.Person, _ cast) ([]record, error) {
	w := &written{}
	login := account(p, "github")
	if login == "" {
		return nil, fmt.Errorf("act %s: %s has no account at github", a.ID, p.ID)
	}
	name := a.Repository
	if name == "" {
		name = "sandbox"
	}
	user := source.NewGitUser(login, number("github/"+login))
	repo := source.NewGitRepository(organisation, name, number("repository/"+name), a.At)
	sha := sha1Like(a, "commit")

	if a.Verb == activity.ReviewSubmitted {
		colleague := source.NewGitUser("colleague-of-"+login, number("github/colleague/"+login))
		n := int(number(a.ID) % 5000)
		branch := source.GitBranch{Label: organisation + ":topic", Ref: "topic", SHA: sha, User: colleague}
		main := source.GitBranch{Label: organisation + ":main", Ref: "main", SHA: sha1Like(a, "base"), User: repo.Owner}
		pull := source.NewGitPullRequest(repo, n, branch, main)
		pull.ID, pull.NodeID, pull.Title, pull.User, pull.CreatedAt, pull.UpdatedAt = number("pull/"+a.ID), "PR_"+sha[:12], a.Detail, colleague, a.At.Add(-3*time.Hour), a.At
		review := source.GitReview{ID: number("review/" + a.ID), NodeID: "PRR_" + sha[:12], User: user, CommitID: sha, SubmittedAt: a.At, State: "approved",
			HTMLURL: pull.HTMLURL + "#pullrequestreview-1", PullRequestURL: pull.URL, AuthorAssociation: "MEMBER"}
		review.Links = source.GitLinks{"html": {Href: review.HTMLURL}, "pull_request": {Href: review.PullRequestURL}}
		return w.add("pull_request_review", source.GitPullRequestReview{Action: "submitted", Review: review, PullRequest: pull, Repository: repo.OutsidePush(), Sender: user}).list, w.err
	}

	file := a.Path
	branch := "topic/" + a.ID[:min(8, len(a.ID))]
	forced := false
	added := []string{}
	modified := []string{}
	switch a.Verb {
	case activity.Commit, activity.Push:
		modified = append(modified, orElse(file, "api/handler.go"))
	case activity.SecretCommitted:
		file = orElse(file, "config/prod.env")
		added = append(added, file)
	case activity.VulnerableDependency:
		file = orElse(file, "go.mod")
		modified = append(modified, file)
	case activity.ForcePush:
		forced = true
		modified = append(modified, orElse(file, "api/handler.go"))
	case activity.UnreviewedCommit:
		branch = "main"
		modified = append(modified, orElse(file, "api/handler.go"))
	case activity.LargeFile:
		added = append(added, orElse(file, "dumps/customers.dump"))
	default:
		return nil, unsupported(a)
	}
	secret := fakeSecret(a)
	message := orElse(a.Detail, "small changes")
	if a.Verb == activity.SecretCommitted && digest(a, "message")[0]&1 == 0 {
		message += "\n\nworks with AWS_ACCESS_KEY_ID=" + secret // people do that
	}
	author := source.GitAuthor{Name: p.Name, Email: p.Email, Username: login}
	commit := source.GitCommit{ID: sha, TreeID: sha1Like(a, "tree"), Distinct: true, Message: message, Timestamp: a.At, URL: repo.HTMLURL + "/commit/" + sha,
		Author: author, Committer: author, Added: added, Removed: []string{}, Modified: modified}
	before := sha1Like(a, "before")
	w.add("push", source.GitPush{Ref: "refs/heads/" + branch, Before: before, After: sha, Forced: forced, Compare: repo.HTMLURL + "/compare/" + before[:12] + "..." + sha[:12],
		Commits: []source.GitCommit{commit}, HeadCommit: &commit, Repository: repo, Pusher: source.GitAuthor{Name: login, Email: p.Email}, Sender: user})

	repo = repo.OutsidePush()
	bot := source.NewGitUser("github-advanced-security[bot]", 62310815)
	bot.Type = "Bot"
	n := int(number("alert/" + a.ID))
	api := "https://api.github.com/repos/" + repo.FullName
	switch a.Verb {
	case activity.SecretCommitted:
		no := false
		alert := source.GitSecretAlert{
			Number:    n,
			CreatedAt: a.At.UTC().Add(20 * time.Second).Truncate(time.Second),
			URL:       fmt.Sprintf("%s/secret-scanning/alerts/%d", api, n),
			HTMLURL: fmt.Sprintf(
				"%s/security/secret-scanning/%d",
				repo.HTMLURL,
				n,
			),
			LocationsURL:          fmt.Sprintf("%s/secret-scanning/alerts/%d/locations", api, n),
			State:                 "open",
			SecretType:            SecretKinds[0] + "_id",
			SecretTypeDisplayName: "Amazon AWS Access Key ID",
			Secret:                secret,
			Validity:              "unknown",
			PushProtectionBypass:  &no,
			PubliclyLeaked:        &no,
			MultiRepo:             &no,
		}
		w.add(
			"secret_scanning_alert",
			source.GitSecretScanningAlert{Action: "created", Alert: alert, Repository: repo, Sender: bot},
		)
		alert.Secret = ""
		w.add("secret_scanning_alert_location", source.GitSecretScanningAlertLocation{Action: "created", Alert: alert, Location: source.GitLocation{Type: "commit", Details: source.GitLocationDetails{
			Path: file, StartLine: 3, EndLine: 3, StartColumn: 19, EndColumn: 39, BlobSHA: sha1Like(a, "blob"), BlobURL: api + "/git/blobs/" + sha1Like(a, "blob"), CommitSHA: sha,
			CommitURL: api + "/git/commits/" + sha}}, Repository: repo, Sender: bot})
	case activity.VulnerableDependency:
		created := a.At.UTC().Add(30 * time.Second).Truncate(time.Second)
		ghsa := "GHSA-" + sha[:4] + "-" + sha[4:8] + "-" + sha[8:12]
		cve := fmt.Sprintf("CVE-2026-%d", 10000+n%40000)
		vector := "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
		pkg := source.GitPackage{Ecosystem: ecosystem(file), Name: "example.net/" + sha[:6]}
		vulnerable := source.GitVulnerability{Package: pkg, Severity: "high", VulnerableVersionRange: "< 1.4.2", FirstPatchedVersion: &source.GitVersion{Identifier: "1.4.2"}}
		w.add("dependabot_alert", source.GitDependabotAlert{Action: "created", Alert: source.GitDependabot{Number: n, State: "open",
			Dependency: source.GitDependency{Package: pkg, ManifestPath: file, Scope: "runtime"},
			SecurityAdvisory: source.GitAdvisory{GHSAID: ghsa, CVEID: &cve, Summary: orElse(a.Detail, "a vulnerability"), Description: orElse(a.Detail, "a vulnerability"), Severity: "high",
				CVSS: source.GitCVSS{VectorString: &vector, Score: 9.8}, CWEs: []source.GitCWE{{CWEID: "CWE-502", Name: "Deserialization of Untrusted Data"}},
				Identifiers: []source.GitIdentifier{{Type: "GHSA", Value: ghsa}, {Type: "CVE", Value: cve}}, References: []source.GitReference{{URL: "https://github.com/advisories/" + ghsa}},
				Vulnerabilities: []source.GitVulnerability{vulnerable}, PublishedAt: created.AddDate(0, 0, -3), UpdatedAt: created.AddDate(0, 0, -1)},
			SecurityVulnerability: vulnerable, URL: fmt.Sprintf("%s/dependabot/alerts/%d", api, n), HTMLURL: fmt.Sprintf("%s/security/dependabot/%d", repo.HTMLURL, n), CreatedAt: created, UpdatedAt: created},
			Repository: repo, Sender: bot})
	}
	return w.list, w.err
}

// fakeSecret has the shape of an AWS access key and opens nothing.
func fakeSecret(a routine.Act) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	d := digest(a, "secret")
	key := []byte("AKIA")
	for _, b := range d[:16] {
		key = append(key, letters[b&31])
	}
	return string(key)
}

func ecosystem(manifest string) string {
	switch {
	case strings.HasSuffix(manifest, "go.mod"):
		return "go"
	case strings.Contains(manifest, "require") || strings.Contains(manifest, "py"):
		return "pip"
	default:
		return "npm"
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func jiraRecords(a routine.Act, p risk.Person, c cast) ([]record, error) {
	id := account(p, "jira")
	if id == "" {
		return nil, fmt.Errorf("act %s: %s has no account at jira", a.ID, p.ID)
	}
	me := source.NewJiraUser(id, p.Name, "", p.Zone) // addresses are hidden, as they mostly are
	who := me
	key := orElse(a.Ticket, fmt.Sprintf("SEC-%d", 1+number(a.ID)%9000))
	project, _, _ := strings.Cut(key, "-")
	kind := source.JiraNamed{Self: "https://example.atlassian.net/rest/api/2/issuetype/10001", ID: "10001", Name: "Task"}
	text := func(s string) *string { return &s }
	f := source.JiraFields{Summary: orElse(a.Detail, key), IssueType: kind, Project: source.JiraProject{Self: "https://example.atlassian.net/rest/api/2/project/10000", ID: "10000", Key: project, Name: project},
		Priority: source.JiraNamed{Self: "https://example.atlassian.net/rest/api/2/priority/2", ID: "2", Name: "High"}, Status: source.NewJiraStatus("indeterminate", "In Progress"),
		Assignee: &me, Reporter: &me, Labels: []string{}, Created: source.JiraTime{Time: a.At.AddDate(0, 0, -12)}, Updated: source.JiraTime{Time: a.At.Truncate(time.Millisecond)}}
	change := source.JiraChange{Field: "priority", FieldType: "jira", FieldID: "priority", From: text("3"), FromString: text("Medium"), To: text("2"), ToString: text("High")}
	status := func(from, to string) source.JiraChange {
		return source.JiraChange{Field: "status", FieldType: "jira", FieldID: "status", From: text("10004"), FromString: text(from), To: text("10003"), ToString: text(to)}
	}
	switch a.Verb {
	case activity.TicketUpdated:
	case activity.OverdueSecurityTicket:
		f.Labels = []string{source.JiraSecurityLabel}
		f.DueDate = a.At.AddDate(0, 0, -1).Format(time.DateOnly)
	case activity.SecurityTicketClosed:
		f.Labels = []string{source.JiraSecurityLabel}
		f.Status = source.NewJiraStatus("done", "Done")
		f.Resolution = &source.JiraNamed{Self: "https://example.atlassian.net/rest/api/2/resolution/10000", ID: "10000", Name: "Done"}
		change = status("In Progress", "Done")
	case activity.ExportApproved:
		f.Labels = []string{source.JiraExportLabel}
		f.Status = source.NewJiraStatus("indeterminate", "Approved")
		f.Environment = orElse(a.Resource, defaultBucket)
		change = status("Waiting for approval", "Approved")
		if boss, ok := c[p.Manager]; ok && account(boss, "jira") != "" { // nobody approves their own
			who = source.NewJiraUser(account(boss, "jira"), boss.Name, "", boss.Zone)
		}
	default:
		return nil, unsupported(a)
	}
	w := &written{}
	issue := strconv.FormatInt(number("issue/"+key), 10)
	return w.add("webhook", source.JiraWebhook{Timestamp: a.At.UnixMilli(), WebhookEvent: "jira:issue_updated", IssueEventTypeName: "issue_generic", User: &who,
		Issue:     &source.JiraIssue{ID: issue, Self: "https://example.atlassian.net/rest/api/2/issue/" + issue, Key: key, Fields: f},
		Changelog: &source.JiraChangelog{ID: strconv.FormatInt(number("changelog/"+a.ID)*1000+number("minor/"+a.ID)%1000, 10), Items: []source.JiraChange{change}}}).list, w.err
}

const (
	defaultBucket = "s3://customer-exports"
	ownAccount    = "123456789012"
	otherAccount  = "210987654321"
)

func iamRecords(a routine.Act, p risk.Person, _ cast) ([]record, error) {
	w := &written{}
	login, user := account(p, "okta"), account(p, "aws")
	switch a.Verb {
	case activity.SignIn, activity.OffHoursAccess, activity.MFADenied:
		if login == "" {
			return nil, fmt.Errorf("act %s: %s has no account at okta", a.ID, p.ID)
		}
		return w.keep("okta", oktaEvent(a, p, login)).list, w.err
	}
	if user == "" {
		return nil, fmt.Errorf("act %s: %s has no account at aws", a.ID, p.ID)
	}
	d := digest(a, "aws")
	c := source.CloudTrail{EventVersion: "1.11", EventTime: a.At.UTC().Truncate(time.Second), EventSource: "iam.amazonaws.com", AWSRegion: "eu-central-1", SourceIPAddress: address(p),
		UserAgent: "aws-cli/2.31.0", RequestID: guid("request/" + a.ID), EventID: guid("cloudtrail/" + a.ID), EventType: "AwsApiCall", ManagementEvent: true, RecipientAccountID: ownAccount, EventCategory: "Management",
		UserIdentity: source.CloudTrailIdentity{Type: "IAMUser", PrincipalID: "AIDA" + strings.ToUpper(hex.EncodeToString(d[:8])), ARN: "arn:aws:iam::" + ownAccount + ":user/" + user, AccountID: ownAccount,
			UserName: user}}
	var request source.CloudTrailRequest
	var answer, more any
	switch a.Verb {
	case activity.PrivilegeEscalation:
		c.EventName = "AttachUserPolicy"
		request.UserName, request.PolicyARN = user, "arn:aws:iam::aws:policy/"+orElse(a.Resource, "AdministratorAccess")
	case activity.ServiceAccountKey:
		c.EventName = "CreateAccessKey"
		request.UserName = orElse(a.Resource, "svc-batch")
		answer = createdKey{createdKeyBody{UserName: request.UserName, Status: "Active", AccessKeyID: fakeSecret(a), CreateDate: a.At.UTC().Format("Jan 2, 2006 3:04:05 PM")}}
	case activity.CrossAccountAccess:
		c.EventName, c.EventSource, c.ReadOnly = "AssumeRole", "sts.amazonaws.com", true
		c.RecipientAccountID = orElse(a.Resource, otherAccount)
		request.RoleARN = "arn:aws:iam::" + c.RecipientAccountID + ":role/deployer"
	case activity.DataExport:
		c.EventName, c.EventSource, c.ReadOnly, c.ManagementEvent, c.EventCategory = "GetObject", "s3.amazonaws.com", true, false, "Data"
		bucket := strings.TrimPrefix(orElse(a.Resource, defaultBucket), "s3://")
		request.BucketName, request.Key = bucket, "export/"+a.At.UTC().Format(time.DateOnly)+".parquet"
		more = source.CloudTrailAdditional{BytesTransferredOut: float64(max(1, a.Bytes))}
		c.Resources = []source.CloudTrailResource{{Type: "AWS::S3::Object", ARN: "arn:aws:s3:::" + bucket + "/" + request.Key}, {AccountID: ownAccount, Type: "AWS::S3::Bucket", ARN: "arn:aws:s3:::" + bucket}}
	case activity.UnusedPermission:
		c.EventName, c.EventSource, c.EventType = "UnusedAccessFinding", "access-analyzer.amazonaws.com", "AwsServiceEvent"
		c.UserIdentity = source.CloudTrailIdentity{Type: "AWSService", AccountID: ownAccount, InvokedBy: "access-analyzer.amazonaws.com"}
		c.ServiceEventDetails = w.raw(source.AccessAnalyzerFinding{ID: guid("finding/" + a.ID), FindingType: "UnusedPermission", Resource: "arn:aws:iam::" + ownAccount + ":user/" + user,
			ResourceType: "AWS::IAM::User", Status: "ACTIVE"})
	default:
		return nil, unsupported(a)
	}
	c.RequestParameters, c.ResponseElements = w.raw(request), w.raw(answer)
	if more != nil {
		c.AdditionalEventData = w.raw(more)
	}
	return w.add("cloudtrail", c).list, w.err
}

type createdKey struct {
	AccessKey createdKeyBody `json:"accessKey"`
}

type createdKeyBody struct {
	UserName    string `json:"userName"`
	Status      string `json:"status"`
	AccessKeyID string `json:"accessKeyId"`
	CreateDate  string `json:"createDate"`
}

func (w *written) raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	return b
}

// address is a person's own address, from the blocks reserved for documentation.
func address(p risk.Person) string {
	n := number("address/" + p.ID)
	return fmt.Sprintf("%s.%d", []string{"192.0.2", "198.51.100", "203.0.113"}[n%3], 1+n/3%250)
}

func oktaEvent(a routine.Act, p risk.Person, login string) source.OktaEvent {
	place := source.OktaPlace{City: "Frankfurt am Main", State: "Hesse", Country: "Germany", PostalCode: "60313", Geolocation: source.OktaGeolocation{Lat: 50.1155, Lon: 8.6842}}
	ip := address(p)
	id := "00u" + guid("okta/" + login)[:8] + guid("okta/" + login)[24:33]
	e := source.OktaEvent{
		Actor:                 source.OktaActor{ID: id, Type: "User", AlternateID: login, DisplayName: p.Name},
		Client:                source.OktaClient{UserAgent: source.OktaUserAgent{RawUserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:152.0) Gecko/20100101 Firefox/152.0", OS: "Linux", Browser: "FIREFOX"}, Zone: "null", Device: "Computer", IPAddress: ip, GeographicalContext: place},
		AuthenticationContext: source.OktaAuthentication{RootSessionID: "idx" + sha1Like(a, "session")[:20], ExternalSessionID: "idx" + sha1Like(a, "session")[:20]},
		Outcome:               source.OktaOutcome{Result: "SUCCESS"},
		Published:             a.At.UTC().Truncate(time.Millisecond), Severity: "INFO", Version: "0", UUID: guid("okta/" + a.ID),
		DebugContext: source.OktaDebug{DebugData: map[string]string{source.OktaLocalTime: a.At.Truncate(time.Millisecond).Format(time.RFC3339Nano), "requestUri": "/oauth2/v1/authorize"}},
		Transaction:  source.OktaTransaction{Type: "WEB", ID: sha1Like(a, "transaction")[:27], Detail: map[string]string{}},
		Request:      source.OktaRequest{IPChain: []source.OktaHop{{IP: ip, GeographicalContext: place, Version: "V4"}}},
		Target:       []source.OktaActor{},
	}
	switch a.Verb {
	case activity.SignIn:
		e.EventType, e.DisplayMessage = "user.session.start", "User login to Okta"
	case activity.MFADenied:
		e.EventType, e.DisplayMessage, e.Severity = "user.mfa.okta_verify.deny_push", "User rejected Okta push verify", "WARN"
		reason := "User rejected"
		e.Outcome = source.OktaOutcome{Result: "FAILURE", Reason: &reason}
	case activity.OffHoursAccess:
		e.EventType, e.DisplayMessage = "user.authentication.sso", "User single sign on to app"
		e.Target = []source.OktaActor{{ID: "0oa" + sha1Like(a, "app")[:17], Type: "AppInstance", AlternateID: orElse(a.Resource, "vault"), DisplayName: orElse(a.Resource, "vault"),
			DetailEntry: map[string]string{"signOnModeType": "OPENID_CONNECT", source.OktaSensitivity: "restricted"}}}
		if !source.OffHours(a.At) {
			e.DebugContext.DebugData[source.OktaAccessWindow] = "outside" // by this person's own working hours
		}
	}
	return e
}

var severities = []string{"Unknown", "Informational", "Low", "Medium", "High", "Critical"}

func siemRecords(a routine.Act, p risk.Person, _ cast) ([]record, error) {
	for _, k := range source.FindingKinds {
		if k.Verb != a.Verb {
			continue
		}
		at := a.At.Truncate(time.Millisecond)
		_, offset := at.Zone()
		minutes := offset / 60
		user := &source.OCSFUser{Name: account(p, "aws"), UID: account(p, "okta"), EmailAddr: p.Email}
		f := source.Finding{ActivityID: 1, ActivityName: "Create", CategoryUID: 2, CategoryName: "Findings", ClassUID: source.DetectionFinding, ClassName: "Detection Finding",
			TypeUID: source.DetectionFinding*100 + 1, TypeName: "Detection Finding: Create", SeverityID: k.Severity, Severity: severities[k.Severity], Time: at.UnixMilli(), TimezoneOffset: &minutes,
			Message: orElse(a.Detail, k.Type), Metadata: source.OCSFMetadata{Version: source.OCSFVersion, Product: source.OCSFProduct{Name: "Endpoint Watch", VendorName: "Example"}, UID: guid("event/" + a.ID)},
			FindingInfo: source.OCSFFindingInfo{UID: guid("finding/" + a.ID), Title: orElse(a.Detail, k.Type), Types: []string{k.Type}, CreatedTime: at.UnixMilli()},
			StatusID:    1, Status: "New", RiskLevelID: min(4, k.Severity-1), IsAlert: k.Severity > 1, Evidences: []source.OCSFEvidence{{Actor: &source.OCSFActor{User: user}}}}
		if k.Technique.UID != "" {
			f.FindingInfo.Attacks = []source.OCSFAttack{{Tactic: &k.Tactic, Technique: &k.Technique, Version: "17.1"}}
		}
		w := &written{}
		return w.add("HEC envelope", source.HEC{Time: float64(at.UnixMilli()) / 1000, Host: "siem-1", Source: "endpoint-watch", Sourcetype: "ocsf:finding", Index: "security", Event: f}).list, w.err
	}
	return nil, unsupported(a)
}
