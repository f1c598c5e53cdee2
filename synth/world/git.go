package world

import (
	"fmt"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

// gitAct is an act at GitHub with everything that its records share.
type gitAct struct {
	routine.Act
	person risk.Person
	login  string
	user   source.GitUser
	repo   source.GitRepository // as a push shows it
	sha    string               // of the commit
	branch string
	forced bool
	file   string // that the act is about
	added  []string
	edited []string
}

func gitRecords(a routine.Act, p risk.Person, _ cast) ([]record, error) {
	login := account(p, "github")
	if login == "" {
		return nil, fmt.Errorf("act %s: %s has no account at github", a.ID, p.ID)
	}
	name := orElse(a.Repository, "sandbox")
	g := gitAct{
		Act: a, person: p, login: login,
		user:   source.NewGitUser(login, number("github/"+login)),
		repo:   source.NewGitRepository(organisation, name, number("repository/"+name), a.At),
		sha:    sha1Like(a, "commit"),
		branch: "topic/" + a.ID[:min(8, len(a.ID))],
		added:  []string{}, edited: []string{},
	}
	w := &written{}
	if a.Verb == activity.ReviewSubmitted {
		return w.add("pull_request_review", g.review()).list, w.err
	}
	if err := g.change(); err != nil {
		return nil, err
	}
	w.add("push", g.push())
	switch a.Verb {
	case activity.SecretCommitted:
		g.secretAlert(w)
	case activity.VulnerableDependency:
		w.add("dependabot_alert", g.dependabotAlert())
	}
	return w.list, w.err
}

// review is an approval of a colleague's pull request.
func (g *gitAct) review() source.GitPullRequestReview {
	colleague := source.NewGitUser("colleague-of-"+g.login, number("github/colleague/"+g.login))
	topic := source.GitBranch{Label: organisation + ":topic", Ref: "topic", SHA: g.sha, User: colleague}
	main := source.GitBranch{Label: organisation + ":main", Ref: "main", SHA: sha1Like(g.Act, "base"), User: g.repo.Owner}
	pull := source.NewGitPullRequest(g.repo, int(number(g.ID)%5000), topic, main)
	pull.ID, pull.NodeID, pull.Title, pull.User = number("pull/"+g.ID), "PR_"+g.sha[:12], g.Detail, colleague
	pull.CreatedAt, pull.UpdatedAt = g.At.Add(-3*time.Hour), g.At
	review := source.GitReview{
		ID: number("review/" + g.ID), NodeID: "PRR_" + g.sha[:12], User: g.user, CommitID: g.sha, SubmittedAt: g.At,
		State: "approved", HTMLURL: pull.HTMLURL + "#pullrequestreview-1", PullRequestURL: pull.URL,
		AuthorAssociation: "MEMBER",
	}
	review.Links = source.GitLinks{"html": {Href: review.HTMLURL}, "pull_request": {Href: review.PullRequestURL}}
	return source.GitPullRequestReview{
		Action: "submitted", Review: review, PullRequest: pull, Repository: g.repo.OutsidePush(), Sender: g.user,
	}
}

// change decides what the act's commit changes, and how it is pushed.
func (g *gitAct) change() error {
	g.file = g.Path
	switch g.Verb {
	case activity.Commit, activity.Push:
		g.edited = append(g.edited, orElse(g.file, "api/handler.go"))
	case activity.SecretCommitted:
		g.file = orElse(g.file, "config/prod.env")
		g.added = append(g.added, g.file)
	case activity.VulnerableDependency:
		g.file = orElse(g.file, "go.mod")
		g.edited = append(g.edited, g.file)
	case activity.ForcePush:
		g.forced = true
		g.edited = append(g.edited, orElse(g.file, "api/handler.go"))
	case activity.UnreviewedCommit:
		g.branch = "main"
		g.edited = append(g.edited, orElse(g.file, "api/handler.go"))
	case activity.LargeFile:
		g.added = append(g.added, orElse(g.file, "dumps/customers.dump"))
	default:
		return unsupported(g.Act)
	}
	return nil
}

// push is the push of the act's one commit. Every second committed secret is also quoted in the message.
func (g *gitAct) push() source.GitPush {
	message := orElse(g.Detail, "small changes")
	if g.Verb == activity.SecretCommitted && digest(g.Act, "message")[0]&1 == 0 {
		message += "\n\nworks with AWS_ACCESS_KEY_ID=" + fakeSecret(g.Act)
	}
	author := source.GitAuthor{Name: g.person.Name, Email: g.person.Email, Username: g.login}
	commit := source.GitCommit{
		ID: g.sha, TreeID: sha1Like(g.Act, "tree"), Distinct: true, Message: message, Timestamp: g.At,
		URL: g.repo.HTMLURL + "/commit/" + g.sha, Author: author, Committer: author,
		Added: g.added, Removed: []string{}, Modified: g.edited,
	}
	before := sha1Like(g.Act, "before")
	return source.GitPush{
		Ref: "refs/heads/" + g.branch, Before: before, After: g.sha, Forced: g.forced,
		Compare: g.repo.HTMLURL + "/compare/" + before[:12] + "..." + g.sha[:12],
		Commits: []source.GitCommit{commit}, HeadCommit: &commit, Repository: g.repo,
		Pusher: source.GitAuthor{Name: g.login, Email: g.person.Email}, Sender: g.user,
	}
}

// alertBot is the sender of alerts.
func alertBot() source.GitUser {
	bot := source.NewGitUser("github-advanced-security[bot]", 62310815)
	bot.Type = "Bot"
	return bot
}

// api is the address of the repository's API, and alert the number of the act's alert.
func (g *gitAct) api() string { return "https://api.github.com/repos/" + g.repo.FullName }
func (g *gitAct) alert() int  { return int(number("alert/" + g.ID)) }

// secretAlert adds the alert of secret scanning, and its location.
func (g *gitAct) secretAlert(w *written) {
	no, n, api := false, g.alert(), g.api()
	repo, bot := g.repo.OutsidePush(), alertBot()
	alert := source.GitSecretAlert{
		Number:                n,
		CreatedAt:             g.At.UTC().Add(20 * time.Second).Truncate(time.Second),
		URL:                   fmt.Sprintf("%s/secret-scanning/alerts/%d", api, n),
		HTMLURL:               fmt.Sprintf("%s/security/secret-scanning/%d", repo.HTMLURL, n),
		LocationsURL:          fmt.Sprintf("%s/secret-scanning/alerts/%d/locations", api, n),
		State:                 "open",
		SecretType:            SecretKinds[0] + "_id",
		SecretTypeDisplayName: "Amazon AWS Access Key ID",
		Secret:                fakeSecret(g.Act),
		Validity:              "unknown",
		PushProtectionBypass:  &no,
		PubliclyLeaked:        &no,
		MultiRepo:             &no,
	}
	w.add("secret_scanning_alert", source.GitSecretScanningAlert{
		Action: "created", Alert: alert, Repository: repo, Sender: bot,
	})
	alert.Secret = ""
	blob := sha1Like(g.Act, "blob")
	w.add("secret_scanning_alert_location", source.GitSecretScanningAlertLocation{
		Action: "created", Alert: alert, Repository: repo, Sender: bot,
		Location: source.GitLocation{Type: "commit", Details: source.GitLocationDetails{
			Path: g.file, StartLine: 3, EndLine: 3, StartColumn: 19, EndColumn: 39,
			BlobSHA: blob, BlobURL: api + "/git/blobs/" + blob, CommitSHA: g.sha, CommitURL: api + "/git/commits/" + g.sha,
		}},
	})
}

// dependabotAlert is the alert about the dependency that the act brought in.
func (g *gitAct) dependabotAlert() source.GitDependabotAlert {
	n, repo := g.alert(), g.repo.OutsidePush()
	created := g.At.UTC().Add(30 * time.Second).Truncate(time.Second)
	ghsa := "GHSA-" + g.sha[:4] + "-" + g.sha[4:8] + "-" + g.sha[8:12]
	cve := fmt.Sprintf("CVE-2026-%d", 10000+n%40000)
	vector := "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
	summary := orElse(g.Detail, "a vulnerability")
	pkg := source.GitPackage{Ecosystem: ecosystem(g.file), Name: "example.net/" + g.sha[:6]}
	vulnerable := source.GitVulnerability{
		Package: pkg, Severity: "high", VulnerableVersionRange: "< 1.4.2",
		FirstPatchedVersion: &source.GitVersion{Identifier: "1.4.2"},
	}
	advisory := source.GitAdvisory{
		GHSAID: ghsa, CVEID: &cve, Summary: summary, Description: summary, Severity: "high",
		CVSS:            source.GitCVSS{VectorString: &vector, Score: 9.8},
		CWEs:            []source.GitCWE{{CWEID: "CWE-502", Name: "Deserialization of Untrusted Data"}},
		Identifiers:     []source.GitIdentifier{{Type: "GHSA", Value: ghsa}, {Type: "CVE", Value: cve}},
		References:      []source.GitReference{{URL: "https://github.com/advisories/" + ghsa}},
		Vulnerabilities: []source.GitVulnerability{vulnerable},
		PublishedAt:     created.AddDate(0, 0, -3), UpdatedAt: created.AddDate(0, 0, -1),
	}
	return source.GitDependabotAlert{Action: "created", Repository: repo, Sender: alertBot(), Alert: source.GitDependabot{
		Number: n, State: "open",
		Dependency:       source.GitDependency{Package: pkg, ManifestPath: g.file, Scope: "runtime"},
		SecurityAdvisory: advisory, SecurityVulnerability: vulnerable,
		URL:       fmt.Sprintf("%s/dependabot/alerts/%d", g.api(), n),
		HTMLURL:   fmt.Sprintf("%s/security/dependabot/%d", repo.HTMLURL, n),
		CreatedAt: created, UpdatedAt: created,
	}}
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
