package activity

// Git is the source of commits, pushes and reviews.
const Git Source = "git"

// Verbs of git that carry risk, then those that are used only by patterns, baselines and states.
const (
	SecretCommitted      Verb = "git.secret_committed"
	VulnerableDependency Verb = "git.vulnerable_dependency"
	ForcePush            Verb = "git.force_push"
	UnreviewedCommit     Verb = "git.unreviewed_commit"
	LargeFile            Verb = "git.large_file"

	Commit          Verb = "git.commit"
	Push            Verb = "git.push"
	ReviewSubmitted Verb = "git.review_submitted"
)

var git = Row{
	Source: Git, Group: Code, Vendor: true,
	Accounts: []string{"github", "gitlab", "email"},
	Verbs: []VerbRow{
		{SecretCommitted, "committed a secret", "committed %d secrets"},
		{VulnerableDependency, "brought in a vulnerable dependency", "brought in %d vulnerable dependencies"},
		{ForcePush, "rewrote shared history with a forced push", "rewrote shared history with %d forced pushes"},
		{UnreviewedCommit, "committed to the default branch without review",
			"committed to the default branch without review %d times"},
		{LargeFile, "committed a large file", "committed %d large files"},
		{Commit, "committed code", "committed code %d times"},
		{Verb: Push},
		{Verb: ReviewSubmitted},
	},
}
