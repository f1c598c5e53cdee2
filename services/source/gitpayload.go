package source

import (
	"encoding/json"
	"strconv"
	"time"
)

// GitUser is GitHub's "simple user".
type GitUser struct {
	Login             string `json:"login"`
	ID                int64  `json:"id"`
	NodeID            string `json:"node_id"`
	AvatarURL         string `json:"avatar_url"`
	GravatarID        string `json:"gravatar_id"`
	URL               string `json:"url"`
	HTMLURL           string `json:"html_url"`
	FollowersURL      string `json:"followers_url"`
	FollowingURL      string `json:"following_url"`
	GistsURL          string `json:"gists_url"`
	StarredURL        string `json:"starred_url"`
	SubscriptionsURL  string `json:"subscriptions_url"`
	OrganizationsURL  string `json:"organizations_url"`
	ReposURL          string `json:"repos_url"`
	EventsURL         string `json:"events_url"`
	ReceivedEventsURL string `json:"received_events_url"`
	Type              string `json:"type"`
	SiteAdmin         bool   `json:"site_admin"`
}

// NewGitUser is the user with everything that GitHub derives from login and number.
func NewGitUser(login string, id int64) GitUser {
	u := "https://api.github.com/users/" + login
	return GitUser{Login: login, ID: id, NodeID: "U_" + strconv.FormatInt(id, 36),
		AvatarURL: "https://avatars.githubusercontent.com/u/" + strconv.FormatInt(id, 10), URL: u,
		HTMLURL:      "https://github.com/" + login,
		FollowersURL: u + "/followers", FollowingURL: u + "/following{/other_user}", GistsURL: u + "/gists{/gist_id}",
		StarredURL: u + "/starred{/owner}{/repo}", SubscriptionsURL: u + "/subscriptions", OrganizationsURL: u + "/orgs",
		ReposURL: u + "/repos", EventsURL: u + "/events{/privacy}", ReceivedEventsURL: u + "/received_events", Type: "User"}
}

// GitRepository is GitHub's "repository" of webhooks.
type GitRepository struct {
	ID               int64    `json:"id"`
	NodeID           string   `json:"node_id"`
	Name             string   `json:"name"`
	FullName         string   `json:"full_name"`
	Private          bool     `json:"private"`
	Owner            GitUser  `json:"owner"`
	HTMLURL          string   `json:"html_url"`
	Description      *string  `json:"description"`
	Fork             bool     `json:"fork"`
	URL              string   `json:"url"`
	ForksURL         string   `json:"forks_url"`
	KeysURL          string   `json:"keys_url"`
	CollaboratorsURL string   `json:"collaborators_url"`
	TeamsURL         string   `json:"teams_url"`
	HooksURL         string   `json:"hooks_url"`
	IssueEventsURL   string   `json:"issue_events_url"`
	EventsURL        string   `json:"events_url"`
	AssigneesURL     string   `json:"assignees_url"`
	BranchesURL      string   `json:"branches_url"`
	TagsURL          string   `json:"tags_url"`
	BlobsURL         string   `json:"blobs_url"`
	GitTagsURL       string   `json:"git_tags_url"`
	GitRefsURL       string   `json:"git_refs_url"`
	TreesURL         string   `json:"trees_url"`
	StatusesURL      string   `json:"statuses_url"`
	LanguagesURL     string   `json:"languages_url"`
	StargazersURL    string   `json:"stargazers_url"`
	ContributorsURL  string   `json:"contributors_url"`
	SubscribersURL   string   `json:"subscribers_url"`
	SubscriptionURL  string   `json:"subscription_url"`
	CommitsURL       string   `json:"commits_url"`
	GitCommitsURL    string   `json:"git_commits_url"`
	CommentsURL      string   `json:"comments_url"`
	IssueCommentURL  string   `json:"issue_comment_url"`
	ContentsURL      string   `json:"contents_url"`
	CompareURL       string   `json:"compare_url"`
	MergesURL        string   `json:"merges_url"`
	ArchiveURL       string   `json:"archive_url"`
	DownloadsURL     string   `json:"downloads_url"`
	IssuesURL        string   `json:"issues_url"`
	PullsURL         string   `json:"pulls_url"`
	MilestonesURL    string   `json:"milestones_url"`
	NotificationsURL string   `json:"notifications_url"`
	LabelsURL        string   `json:"labels_url"`
	ReleasesURL      string   `json:"releases_url"`
	DeploymentsURL   string   `json:"deployments_url"`
	CreatedAt        GitTime  `json:"created_at"`
	UpdatedAt        string   `json:"updated_at"`
	PushedAt         GitTime  `json:"pushed_at"`
	GitURL           string   `json:"git_url"`
	SSHURL           string   `json:"ssh_url"`
	CloneURL         string   `json:"clone_url"`
	SvnURL           string   `json:"svn_url"`
	Homepage         *string  `json:"homepage"`
	Size             int64    `json:"size"`
	StargazersCount  int      `json:"stargazers_count"`
	WatchersCount    int      `json:"watchers_count"`
	Language         *string  `json:"language"`
	HasIssues        bool     `json:"has_issues"`
	HasProjects      bool     `json:"has_projects"`
	HasDownloads     bool     `json:"has_downloads"`
	HasWiki          bool     `json:"has_wiki"`
	HasPages         bool     `json:"has_pages"`
	HasDiscussions   bool     `json:"has_discussions"`
	ForksCount       int      `json:"forks_count"`
	MirrorURL        *string  `json:"mirror_url"`
	Archived         bool     `json:"archived"`
	Disabled         bool     `json:"disabled"`
	OpenIssuesCount  int      `json:"open_issues_count"`
	License          *string  `json:"license"`
	AllowForking     bool     `json:"allow_forking"`
	IsTemplate       bool     `json:"is_template"`
	SignoffRequired  bool     `json:"web_commit_signoff_required"`
	Topics           []string `json:"topics"`
	Visibility       string   `json:"visibility"`
	Forks            int      `json:"forks"`
	OpenIssues       int      `json:"open_issues"`
	Watchers         int      `json:"watchers"`
	DefaultBranch    string   `json:"default_branch"`
}

// GitTime is a time of a repository: Unix time in whole seconds in a push, RFC 3339 in every other event.
type GitTime struct {
	time.Time
	Text bool // the form in every event but a push
}

// MarshalJSON writes the form that Text says.
func (t GitTime) MarshalJSON() ([]byte, error) {
	if t.Text {
		return json.Marshal(t.UTC().Format(time.RFC3339))
	}
	return strconv.AppendInt(nil, t.Unix(), 10), nil
}

// UnmarshalJSON reads either form.
func (t *GitTime) UnmarshalJSON(b []byte) error {
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		*t = GitTime{Time: time.Unix(n, 0).UTC()}
		return nil
	}
	t.Text = true
	return json.Unmarshal(b, &t.Time)
}

// OutsidePush is the repository in the form of every event except a push.
func (r GitRepository) OutsidePush() GitRepository {
	r.CreatedAt.Text, r.PushedAt.Text = true, true
	return r
}

// NewGitRepository is the repository with everything that GitHub derives from owner, name and number.
func NewGitRepository(owner, name string, id int64, pushed time.Time) GitRepository {
	full := owner + "/" + name
	u := "https://api.github.com/repos/" + full
	html := "https://github.com/" + full
	o := NewGitUser(owner, id/1000)
	o.Type = "Organization"
	return GitRepository{ID: id, NodeID: "R_" + strconv.FormatInt(id, 36), Name: name, FullName: full, Private: true,
		Owner: o, HTMLURL: html, URL: html,
		ForksURL: u + "/forks", KeysURL: u + "/keys{/key_id}", CollaboratorsURL: u + "/collaborators{/collaborator}",
		TeamsURL: u + "/teams",
		HooksURL: u + "/hooks", IssueEventsURL: u + "/issues/events{/number}", EventsURL: u + "/events", AssigneesURL: u +
			"/assignees{/user}",
		BranchesURL: u + "/branches{/branch}", TagsURL: u + "/tags", BlobsURL: u + "/git/blobs{/sha}", GitTagsURL: u +
			"/git/tags{/sha}",
		GitRefsURL: u + "/git/refs{/sha}", TreesURL: u + "/git/trees{/sha}", StatusesURL: u + "/statuses/{sha}",
		LanguagesURL:  u + "/languages",
		StargazersURL: u + "/stargazers", ContributorsURL: u + "/contributors", SubscribersURL: u + "/subscribers",
		SubscriptionURL: u + "/subscription",
		CommitsURL:      u + "/commits{/sha}", GitCommitsURL: u + "/git/commits{/sha}", CommentsURL: u + "/comments{/number}",
		IssueCommentURL: u + "/issues/comments{/number}", ContentsURL: u + "/contents/{+path}", CompareURL: u +
			"/compare/{base}...{head}",
		MergesURL: u + "/merges", ArchiveURL: u + "/{archive_format}{/ref}", DownloadsURL: u + "/downloads", IssuesURL: u +
			"/issues{/number}",
		PullsURL: u + "/pulls{/number}", MilestonesURL: u + "/milestones{/number}", NotificationsURL: u +
			"/notifications{?since,all,participating}",
		LabelsURL: u + "/labels{/name}", ReleasesURL: u + "/releases{/id}", DeploymentsURL: u + "/deployments",
		CreatedAt: GitTime{Time: pushed.AddDate(-2, 0, 0)}, UpdatedAt: pushed.UTC().Format(time.RFC3339),
		PushedAt: GitTime{Time: pushed},
		GitURL:   "git://github.com/" + full + ".git", SSHURL: "git@github.com:" + full + ".git", CloneURL: html + ".git",
		SvnURL: html,
		Size:   4096, HasIssues: true, HasProjects: true, HasDownloads: true, HasWiki: true, Topics: []string{},
		Visibility: "private", DefaultBranch: "main"}
}

// GitAuthor is an author or committer; Username is absent if GitHub knows no account for the address.
type GitAuthor struct {
	Name     string    `json:"name"`
	Email    string    `json:"email,omitempty"`
	Username string    `json:"username,omitempty"`
	Date     time.Time `json:"date,omitzero"`
}

// GitCommit is a commit of a push.
type GitCommit struct {
	ID        string    `json:"id"`
	TreeID    string    `json:"tree_id"`
	Distinct  bool      `json:"distinct"`
	Message   string    `json:"message"`
	Timestamp time.Time `json:"timestamp"` // with the author's own offset
	URL       string    `json:"url"`
	Author    GitAuthor `json:"author"`
	Committer GitAuthor `json:"committer"`
	Added     []string  `json:"added"`
	Removed   []string  `json:"removed"`
	Modified  []string  `json:"modified"`
}

// GitPush is the event "push". It has no action.
type GitPush struct {
	Ref        string        `json:"ref"`
	Before     string        `json:"before"`
	After      string        `json:"after"`
	Created    bool          `json:"created"`
	Deleted    bool          `json:"deleted"`
	Forced     bool          `json:"forced"`
	BaseRef    *string       `json:"base_ref"`
	Compare    string        `json:"compare"`
	Commits    []GitCommit   `json:"commits"`
	HeadCommit *GitCommit    `json:"head_commit"`
	Repository GitRepository `json:"repository"`
	Pusher     GitAuthor     `json:"pusher"`
	Sender     GitUser       `json:"sender"`
}

// GitSecretAlert is the alert inside "secret_scanning_alert" and "secret_scanning_alert_location". It names no author.
type GitSecretAlert struct {
	Number                int        `json:"number"`
	CreatedAt             time.Time  `json:"created_at"`
	UpdatedAt             *time.Time `json:"updated_at"`
	URL                   string     `json:"url"`
	HTMLURL               string     `json:"html_url"`
	LocationsURL          string     `json:"locations_url"`
	State                 string     `json:"state"` // open, resolved
	Resolution            *string    `json:"resolution"`
	ResolvedAt            *time.Time `json:"resolved_at"`
	ResolvedBy            *GitUser   `json:"resolved_by"`
	SecretType            string     `json:"secret_type"`
	SecretTypeDisplayName string     `json:"secret_type_display_name"`
	Secret                string     `json:"secret,omitempty"` // removed by Scrub before anything is stored
	Validity              string     `json:"validity"`
	PushProtectionBypass  *bool      `json:"push_protection_bypassed"`
	PubliclyLeaked        *bool      `json:"publicly_leaked"`
	MultiRepo             *bool      `json:"multi_repo"`
}

// GitSecretScanningAlert is the event "secret_scanning_alert".
type GitSecretScanningAlert struct {
	Action     string         `json:"action"` // created, reopened, resolved, revoked …
	Alert      GitSecretAlert `json:"alert"`
	Repository GitRepository  `json:"repository"`
	Sender     GitUser        `json:"sender"`
}

// GitLocation is where a secret was found.
type GitLocation struct {
	Type    string             `json:"type"` // commit, issue_title, …
	Details GitLocationDetails `json:"details"`
}

// GitLocationDetails is the location of type "commit".
type GitLocationDetails struct {
	Path        string `json:"path"`
	StartLine   int    `json:"start_line"`
	EndLine     int    `json:"end_line"`
	StartColumn int    `json:"start_column"`
	EndColumn   int    `json:"end_column"`
	BlobSHA     string `json:"blob_sha"`
	BlobURL     string `json:"blob_url"`
	CommitSHA   string `json:"commit_sha"`
	CommitURL   string `json:"commit_url"`
}

// GitSecretScanningAlertLocation is the event "secret_scanning_alert_location".
type GitSecretScanningAlertLocation struct {
	Action     string         `json:"action"` // created
	Alert      GitSecretAlert `json:"alert"`
	Location   GitLocation    `json:"location"`
	Repository GitRepository  `json:"repository"`
	Sender     GitUser        `json:"sender"`
}

// GitPackage names a package of an ecosystem.
type GitPackage struct {
	Ecosystem string `json:"ecosystem"`
	Name      string `json:"name"`
}

// GitDependency is the vulnerable package and the manifest that names it.
type GitDependency struct {
	Package      GitPackage `json:"package"`
	ManifestPath string     `json:"manifest_path"`
	Scope        string     `json:"scope"` // runtime, development
}

// GitVersion is a version of a package.
type GitVersion struct {
	Identifier string `json:"identifier"`
}

// GitVulnerability is the vulnerable range of a package.
type GitVulnerability struct {
	Package                GitPackage  `json:"package"`
	Severity               string      `json:"severity"`
	VulnerableVersionRange string      `json:"vulnerable_version_range"`
	FirstPatchedVersion    *GitVersion `json:"first_patched_version"`
}

// GitCVSS is a score and its vector.
type GitCVSS struct {
	VectorString *string `json:"vector_string"`
	Score        float64 `json:"score"`
}

// GitIdentifier is one name of an advisory.
type GitIdentifier struct {
	Type  string `json:"type"` // GHSA, CVE
	Value string `json:"value"`
}

// GitReference is a page about an advisory.
type GitReference struct {
	URL string `json:"url"`
}

// GitAdvisory is the advisory.
type GitAdvisory struct {
	GHSAID          string             `json:"ghsa_id"`
	CVEID           *string            `json:"cve_id"`
	Summary         string             `json:"summary"`
	Description     string             `json:"description"`
	Severity        string             `json:"severity"`
	CVSS            GitCVSS            `json:"cvss"`
	CWEs            []GitCWE           `json:"cwes"`
	Identifiers     []GitIdentifier    `json:"identifiers"`
	References      []GitReference     `json:"references"`
	Vulnerabilities []GitVulnerability `json:"vulnerabilities"`
	PublishedAt     time.Time          `json:"published_at"`
	UpdatedAt       time.Time          `json:"updated_at"`
	WithdrawnAt     *time.Time         `json:"withdrawn_at"`
}

// GitCWE is a class of weakness.
type GitCWE struct {
	CWEID string `json:"cwe_id"`
	Name  string `json:"name"`
}

// GitDependabot is the alert inside "dependabot_alert".
type GitDependabot struct {
	Number                int              `json:"number"`
	State                 string           `json:"state"` // open, fixed, dismissed, auto_dismissed
	Dependency            GitDependency    `json:"dependency"`
	SecurityAdvisory      GitAdvisory      `json:"security_advisory"`
	SecurityVulnerability GitVulnerability `json:"security_vulnerability"`
	URL                   string           `json:"url"`
	HTMLURL               string           `json:"html_url"`
	CreatedAt             time.Time        `json:"created_at"`
	UpdatedAt             time.Time        `json:"updated_at"`
	DismissedAt           *time.Time       `json:"dismissed_at"`
	DismissedBy           *GitUser         `json:"dismissed_by"`
	DismissedReason       *string          `json:"dismissed_reason"`
	DismissedComment      *string          `json:"dismissed_comment"`
	FixedAt               *time.Time       `json:"fixed_at"`
}

// GitDependabotAlert is the event "dependabot_alert".
type GitDependabotAlert struct {
	Action     string        `json:"action"` // created, fixed, …
	Alert      GitDependabot `json:"alert"`
	Repository GitRepository `json:"repository"`
	Sender     GitUser       `json:"sender"`
}

// GitReview is a review of a pull request.
type GitReview struct {
	ID                int64     `json:"id"`
	NodeID            string    `json:"node_id"`
	User              GitUser   `json:"user"`
	Body              *string   `json:"body"`
	CommitID          string    `json:"commit_id"`
	SubmittedAt       time.Time `json:"submitted_at"`
	State             string    `json:"state"` // approved, changes_requested, commented
	HTMLURL           string    `json:"html_url"`
	PullRequestURL    string    `json:"pull_request_url"`
	AuthorAssociation string    `json:"author_association"`
	Links             GitLinks  `json:"_links"` // html, pull_request
}

// GitLinks are links by their relation.
type GitLinks map[string]GitLink

// GitLink is one link.
type GitLink struct {
	Href string `json:"href"`
}

// GitBranch is one end of a pull request.
type GitBranch struct {
	Label string        `json:"label"`
	Ref   string        `json:"ref"`
	SHA   string        `json:"sha"`
	User  GitUser       `json:"user"`
	Repo  GitRepository `json:"repo"`
}

// GitPullRequest is the reviewed pull request.
type GitPullRequest struct {
	ID                 int64      `json:"id"`
	NodeID             string     `json:"node_id"`
	Number             int        `json:"number"`
	State              string     `json:"state"`
	Locked             bool       `json:"locked"`
	Title              string     `json:"title"`
	User               GitUser    `json:"user"`
	Body               *string    `json:"body"`
	HTMLURL            string     `json:"html_url"`
	URL                string     `json:"url"`
	DiffURL            string     `json:"diff_url"`
	PatchURL           string     `json:"patch_url"`
	IssueURL           string     `json:"issue_url"`
	CommitsURL         string     `json:"commits_url"`
	ReviewCommentsURL  string     `json:"review_comments_url"`
	ReviewCommentURL   string     `json:"review_comment_url"`
	CommentsURL        string     `json:"comments_url"`
	StatusesURL        string     `json:"statuses_url"`
	Draft              bool       `json:"draft"`
	CreatedAt          time.Time  `json:"created_at"`
	UpdatedAt          time.Time  `json:"updated_at"`
	ClosedAt           *time.Time `json:"closed_at"`
	MergedAt           *time.Time `json:"merged_at"`
	Head               GitBranch  `json:"head"`
	Base               GitBranch  `json:"base"`
	MergeCommitSHA     *string    `json:"merge_commit_sha"`
	Assignee           *GitUser   `json:"assignee"`
	Assignees          []GitUser  `json:"assignees"`
	RequestedReviewers []GitUser  `json:"requested_reviewers"`
	RequestedTeams     []struct{} `json:"requested_teams"`
	Labels             []struct{} `json:"labels"`
	Milestone          *struct{}  `json:"milestone"`
	AuthorAssociation  string     `json:"author_association"`
	AutoMerge          *struct{}  `json:"auto_merge"`
	ActiveLockReason   *string    `json:"active_lock_reason"`
	// Links: self, html, issue, comments, review_comments, review_comment, commits, statuses.
	Links GitLinks `json:"_links"`
}

// NewGitPullRequest is the pull request with everything that GitHub derives from the repository, the number and the two
// branches.
func NewGitPullRequest(repo GitRepository, number int, head, base GitBranch) GitPullRequest {
	n := strconv.Itoa(number)
	api, html := "https://api.github.com/repos/"+repo.FullName, repo.HTMLURL+"/pull/"+n
	pull, issue := api+"/pulls/"+n, api+"/issues/"+n
	repo = repo.OutsidePush()
	head.Repo, base.Repo = repo, repo
	p := GitPullRequest{Number: number, State: "open", HTMLURL: html, URL: pull, DiffURL: html + ".diff", PatchURL: html +
		".patch", IssueURL: issue, CommitsURL: pull + "/commits",
		ReviewCommentsURL: pull + "/comments", ReviewCommentURL: api + "/pulls/comments{/number}", CommentsURL: issue +
			"/comments", StatusesURL: api + "/statuses/" + head.SHA, Head: head, Base: base,
		Assignees: []GitUser{}, RequestedReviewers: []GitUser{}, RequestedTeams: []struct{}{}, Labels: []struct{}{},
		AuthorAssociation: "MEMBER"}
	p.Links = GitLinks{"self": {p.URL}, "html": {p.HTMLURL}, "issue": {p.IssueURL}, "comments": {p.CommentsURL},
		"review_comments": {p.ReviewCommentsURL}, "review_comment": {p.ReviewCommentURL},
		"commits": {p.CommitsURL}, "statuses": {p.StatusesURL}}
	return p
}

// GitPullRequestReview is the event "pull_request_review".
type GitPullRequestReview struct {
	Action      string         `json:"action"` // submitted, edited, dismissed
	Review      GitReview      `json:"review"`
	PullRequest GitPullRequest `json:"pull_request"`
	Repository  GitRepository  `json:"repository"`
	Sender      GitUser        `json:"sender"`
}
