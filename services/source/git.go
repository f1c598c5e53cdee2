package source

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/activity"
)

// GitHub webhooks. Shapes from https://docs.github.com/webhooks/webhook-events-and-payloads.
var git = Row{
	Source: activity.Git,
	Pushed: []Push{{
		Route:    "POST /webhooks/github",
		Verify:   verifyHMAC("X-Hub-Signature-256"),
		Delivery: func(h http.Header) string { return h.Get("X-GitHub-Delivery") },
		Split: func(h http.Header, body []byte) ([]Record, error) {
			kind := h.Get("X-GitHub-Event")
			if kind == "" {
				return nil, fmt.Errorf("read webhook: X-GitHub-Event is missing")
			}
			if !json.Valid(body) {
				return nil, fmt.Errorf("read %s: the body is not JSON", kind)
			}
			return []Record{{Kind: kind, Body: body}}, nil
		},
		Status:   http.StatusAccepted,
		Accepted: `{"message":"accepted"}`,
	}},
	Events: gitEvents,
}

// authorship is what is remembered of a commit, so that a later alert finds its author.
type authorship struct {
	At       time.Time `json:"at"`
	Accounts []string  `json:"accounts"`
}

// Keys of the memory: commit/<repo>/<sha> → authorship; manifest/<repo>/<path> → the last authors;
// review/<repo>/<sha>; await-commit/<repo>/<sha> and await-manifest/<repo>/<path> → alerts that arrived before their
// push.
const (
	awaitCommit   = "await-commit/"
	awaitManifest = "await-manifest/"
)

// maxKept is how many authors of a manifest, and how many alerts that wait for one push, are remembered.
const maxKept = 64

func gitEvents(r Record, m Memory) ([]activity.Event, error) {
	switch r.Kind {
	case "push":
		var p GitPush
		if err := decode(r.Kind, r.Body, &p); err != nil {
			return nil, err
		}
		return pushEvents(p, m)
	case "secret_scanning_alert_location":
		var l GitSecretScanningAlertLocation
		if err := decode(r.Kind, r.Body, &l); err != nil {
			return nil, err
		}
		return secretEvents(l, m)
	case "dependabot_alert":
		var d GitDependabotAlert
		if err := decode(r.Kind, r.Body, &d); err != nil {
			return nil, err
		}
		return dependabotEvents(d, m)
	case "pull_request_review":
		var v GitPullRequestReview
		if err := decode(r.Kind, r.Body, &v); err != nil {
			return nil, err
		}
		return reviewEvents(v, m)
	case "secret_scanning_alert":
		// It names neither commit nor author; the location event that follows does. Here it is only validated.
		var a GitSecretScanningAlert
		return nil, decode(r.Kind, r.Body, &a)
	}
	return nil, nil // "ping", and other events of the hook
}

// pushEvents returns the events of each commit that is new in the repository, and one of the push itself.
func pushEvents(p GitPush, m Memory) ([]activity.Event, error) {
	repo := p.Repository.Name
	if repo == "" || p.Ref == "" || p.After == "" {
		return nil, fmt.Errorf("read push: ref, after and repository.name are required")
	}
	if p.Deleted || !strings.HasPrefix(p.Ref, "refs/heads/") {
		return nil, nil
	}
	branch := strings.TrimPrefix(p.Ref, "refs/heads/")
	unreviewed := branch == p.Repository.DefaultBranch && !reviewed(p, m)
	var events []activity.Event
	var last time.Time
	for _, c := range p.Commits {
		if !c.Distinct || c.ID == "" {
			continue // it was pushed before on another branch, and was counted then
		}
		if c.Timestamp.IsZero() {
			return nil, fmt.Errorf("read push: commit %.40q has no timestamp", c.ID)
		}
		last = c.Timestamp
		who := accounts("github", c.Author.Username, "email", c.Author.Email)
		if len(who) == 0 {
			who = accounts("github", p.Sender.Login, "github", p.Pusher.Name)
		}
		w := authorship{At: c.Timestamp, Accounts: who}
		events = append(events, commitEvents(repo, branch, c, w, unreviewed)...)
		late, err := rememberCommit(repo, c, w, m)
		if err != nil {
			return nil, err
		}
		events = append(events, late...)
	}
	at := last
	if p.HeadCommit != nil {
		at = firstTime(at, p.HeadCommit.Timestamp)
	}
	push := activity.Event{
		ID: "git:push/" + printable(repo+"/"+p.After), At: firstTime(at, p.Repository.PushedAt.Time),
		Accounts: accounts("github", p.Sender.Login, "github", p.Pusher.Name, "email", p.Pusher.Email),
		Source:   activity.Git, Verb: activity.Push, Detail: line("%s: %s", repo, branch),
	}
	events = append(events, push)
	if p.Forced {
		push.ID, push.Verb = "git:force_push/"+printable(repo+"/"+p.After), activity.ForcePush
		push.Detail = line("%s: %s, history rewritten", repo, branch)
		events = append(events, push)
	}
	return checked("push", events)
}

// reviewed says whether the result of the push, or one of its commits, was approved in a review.
func reviewed(p GitPush, m Memory) bool {
	approved := func(sha string) bool { return m.Get("review/"+printable(p.Repository.Name+"/"+sha)) != nil }
	return !p.Forced && approved(p.After) ||
		slices.ContainsFunc(p.Commits, func(c GitCommit) bool { return approved(c.ID) })
}

// changedFiles are the files that a commit added or modified.
func changedFiles(c GitCommit) []string { return slices.Concat(c.Added, c.Modified) }

// commitEvents returns the events that a commit itself makes.
func commitEvents(repo, branch string, c GitCommit, w authorship, unreviewed bool) []activity.Event {
	var events []activity.Event
	add := func(verb activity.Verb, kind, detail string) {
		events = append(events, activity.Event{
			ID: "git:" + kind + "/" + printable(repo+"/"+c.ID), At: w.At, Accounts: w.Accounts,
			Source: activity.Git, Verb: verb, Detail: detail,
		})
	}
	add(activity.Commit, "commit", line("%s: %s", repo, firstOr(changedFiles(c), branch)))
	if name := largeFile(c.Added); name != "" {
		add(activity.LargeFile, "large_file", line("%s: %s", repo, name))
	}
	if unreviewed {
		add(activity.UnreviewedCommit, "unreviewed", line("%s: %s without a review", repo, branch))
	}
	return events
}

// rememberCommit stores the authors of the commit and of the manifests that it changed. It returns the events of alerts
// that waited for them.
func rememberCommit(repo string, c GitCommit, w authorship, m Memory) ([]activity.Event, error) {
	id := printable(repo + "/" + c.ID)
	store(m, "commit/"+id, w)
	events, err := resolvePending(m, awaitCommit+id, []authorship{w})
	if err != nil {
		return nil, err
	}
	for _, file := range changedFiles(c) {
		if !manifest(file) {
			continue
		}
		key := printable(repo + "/" + file)
		authors := append(load[[]authorship](m, "manifest/"+key), w)
		if len(authors) > maxKept {
			authors = authors[len(authors)-maxKept:]
		}
		store(m, "manifest/"+key, authors)
		late, err := resolvePending(m, awaitManifest+key, authors)
		if err != nil {
			return nil, err
		}
		events = append(events, late...)
	}
	return events, nil
}

// pendingAlert is an alert whose author is not known yet.
type pendingAlert struct {
	Event activity.Event `json:"event"`
	By    time.Time      `json:"by,omitzero"` // the alert's time: a later commit cannot have caused it
}

// resolvePending returns the events of the alerts pending under key whose author is now known, and removes them.
func resolvePending(m Memory, key string, authors []authorship) ([]activity.Event, error) {
	var events, still = []activity.Event{}, []pendingAlert{}
	list := load[[]pendingAlert](m, key)
	for _, w := range list {
		if author, ok := lastBefore(authors, w.By); ok {
			w.Event.Accounts = author.Accounts
			w.Event.At = author.At
			events = append(events, w.Event)
		} else {
			still = append(still, w)
		}
	}
	switch {
	case len(list) == 0:
	case len(still) == 0:
		m.Delete(key)
	default:
		store(m, key, still)
	}
	return events, nil
}

// lastBefore is the last authorship that is not after by; a zero by means no limit.
func lastBefore(authors []authorship, by time.Time) (authorship, bool) {
	var best authorship
	for _, a := range authors {
		if (by.IsZero() || !a.At.After(by)) && a.At.After(best.At) {
			best = a
		}
	}
	return best, !best.At.IsZero()
}

func secretEvents(l GitSecretScanningAlertLocation, m Memory) ([]activity.Event, error) {
	d := l.Location.Details
	repo := l.Repository.Name
	if repo == "" || l.Alert.Number <= 0 {
		return nil, fmt.Errorf("read secret_scanning_alert_location: alert.number and repository.name are required")
	}
	if l.Action != "created" || l.Location.Type != "commit" || d.CommitSHA == "" {
		return nil, nil // in an issue or a comment there is no commit, and so no author
	}
	what := l.Alert.SecretTypeDisplayName
	if what == "" {
		what = l.Alert.SecretType
	}
	e := activity.Event{ID: fmt.Sprintf("git:secret/%s", printable(fmt.Sprintf("%s/%d/%s", repo, l.Alert.Number,
		d.CommitSHA))),
		Source: activity.Git, Verb: activity.SecretCommitted, Detail: line("%s: %s (%s)", repo, d.Path, what)}
	key := printable(repo + "/" + d.CommitSHA)
	if w := load[*authorship](m, "commit/"+key); w != nil {
		e.At, e.Accounts = w.At, w.Accounts
		return checked("secret_scanning_alert_location", []activity.Event{e})
	}
	addPending(m, awaitCommit+key, pendingAlert{Event: e})
	return nil, nil
}

func dependabotEvents(a GitDependabotAlert, m Memory) ([]activity.Event, error) {
	repo, file := a.Repository.Name, a.Alert.Dependency.ManifestPath
	if repo == "" || a.Alert.Number <= 0 || file == "" {
		return nil,
			fmt.Errorf("read dependabot_alert: alert.number, alert.dependency.manifest_path and repository.name are required")
	}
	if a.Action != "created" && a.Action != "reintroduced" {
		return nil, nil
	}
	p := a.Alert.SecurityVulnerability.Package
	e := activity.Event{ID: "git:dependabot/" + printable(fmt.Sprintf("%s/%d", repo, a.Alert.Number)),
		Source: activity.Git, Verb: activity.VulnerableDependency,
		Detail: line("%s: %s %s (%s, %s)", repo, p.Ecosystem, p.Name,
			a.Alert.SecurityAdvisory.GHSAID, a.Alert.SecurityAdvisory.Severity)}
	// The alert names no author. The event is attributed to the last person who changed the manifest.
	key := printable(repo + "/" + file)
	if w, ok := lastBefore(load[[]authorship](m, "manifest/"+key), a.Alert.CreatedAt); ok {
		e.At, e.Accounts = w.At, w.Accounts
		return checked("dependabot_alert", []activity.Event{e})
	}
	addPending(m, awaitManifest+key, pendingAlert{Event: e, By: a.Alert.CreatedAt})
	return nil, nil
}

func reviewEvents(v GitPullRequestReview, m Memory) ([]activity.Event, error) {
	repo := v.Repository.Name
	if repo == "" || v.Review.ID <= 0 {
		return nil, fmt.Errorf("read pull_request_review: review.id and repository.name are required")
	}
	if v.Action != "submitted" {
		return nil, nil
	}
	// An author's review of their own change does not count.
	if v.Review.State == "approved" && v.Review.User.Login != v.PullRequest.User.Login {
		for _, sha := range []string{v.Review.CommitID, v.PullRequest.Head.SHA} {
			if sha != "" {
				m.Put("review/"+printable(repo+"/"+sha), []byte("1"))
			}
		}
		if sha := v.PullRequest.MergeCommitSHA; sha != nil && *sha != "" {
			m.Put("review/"+printable(repo+"/"+*sha), []byte("1"))
		}
	}
	return checked("pull_request_review", []activity.Event{{ID: "git:review/" + printable(fmt.Sprintf("%s/%d", repo,
		v.Review.ID)), At: v.Review.SubmittedAt,
		Accounts: accounts("github", v.Review.User.Login), Source: activity.Git, Verb: activity.ReviewSubmitted,
		Detail: line("%s: #%d", repo, v.PullRequest.Number)}})
}

func addPending(m Memory, key string, w pendingAlert) {
	list := load[[]pendingAlert](m, key)
	for _, known := range list {
		if known.Event.ID == w.Event.ID {
			return
		}
	}
	if len(list) < maxKept {
		store(m, key, append(list, w))
	}
}

func store[T any](m Memory, key string, v T) {
	b, err := json.Marshal(v)
	if err != nil { // a time beyond year 9999, which no later record can match
		return
	}
	m.Put(key, b)
}

func load[T any](m Memory, key string) T {
	var v T
	if b := m.Get(key); b != nil {
		_ = json.Unmarshal(b, &v) // only what store wrote
	}
	return v
}

func firstOr(list []string, otherwise string) string {
	if len(list) > 0 {
		return list[0]
	}
	return otherwise
}

// largeFile is the first added file whose extension is that of an archive, a disk image, a dump or a model. A push has
// no sizes, and these are the files that make a repository large.
func largeFile(added []string) string {
	for _, f := range added {
		switch strings.ToLower(path.Ext(f)) {
		case ".zip", ".gz", ".tgz", ".xz", ".7z", ".tar", ".iso", ".dmg", ".qcow2", ".jar", ".war", ".bin", ".exe", ".dump",
			".bak", ".sqlite", ".parquet",
			".onnx", ".safetensors", ".mp4", ".mov", ".psd", ".core":
			return f
		case ".sql":
			if strings.Contains(strings.ToLower(f), "dump") { // others are migrations
				return f
			}
		}
	}
	return ""
}

// manifest says whether a file lists dependencies, for the ecosystems that Dependabot supports.
func manifest(file string) bool {
	switch base := path.Base(file); base {
	case "go.mod", "package.json", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "requirements.txt",
		"pyproject.toml", "poetry.lock", "Pipfile.lock",
		"pom.xml", "build.gradle", "Cargo.lock", "Cargo.toml", "Gemfile.lock", "composer.lock", "Dockerfile":
		return true
	default:
		return strings.HasSuffix(base, ".csproj")
	}
}
