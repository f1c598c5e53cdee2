package routine

import (
	"fmt"
	"math/rand/v2"

	"example.org/security-training/services/activity"
)

var (
	verbs  = []string{"fix", "add", "rename", "simplify", "test", "document", "cache", "retry", "validate", "remove"}
	things = []string{"refund rounding", "invoice export", "the health probe", "pagination", "the settings page",
		"currency table", "the nightly job", "login redirect", "metrics labels", "the query plan"}
	sources = []string{"api/handler.go", "store/query.go", "web/page.tsx", "jobs/nightly.py", "config/limits.yaml",
		"deploy/values.yaml", "model/train.py", "docs/readme.md"}
	leaky = []string{"config/prod.env", "deploy/secrets.yaml", "scripts/backup.sh", "notebooks/connect.ipynb",
		"ci/release.yml"}
	heavy    = []string{"dumps/customers.sql", "models/churn.onnx", "assets/build.tar.gz", "images/runner.iso"}
	packages = []string{"log4shell-like RCE in a logging library", "prototype pollution in a parser",
		"path traversal in an archive reader", "SSRF in an HTTP client", "deserialisation in a queue client"}
	buckets = []string{"s3://customer-exports", "s3://ledger-archive", "rds/payments", "secretsmanager/prod",
		"s3://hr-records"}
	reports  = []string{"s3://weekly-report", "s3://dashboards", "s3://ab-tests"}
	policies = []string{"AdministratorAccess", "PowerUserAccess", "IAMFullAccess"}
	malware  = []string{"Trojan.Downloader on a laptop", "InfoStealer in a browser extension",
		"Coin miner in a container"}
	broken = []string{"USB storage mounted", "unapproved browser extension", "disk encryption off",
		"personal cloud drive used", "screen lock disabled"}
	phish     = []string{"parcel fee", "shared document", "password expiry", "bonus letter"}
	accountsX = []string{"210987654321", "345678901234", "456789012345"}
)

func choose(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

// dress sets the details of an act that its verb needs.
func (l *liver) dress(a Act, r *rand.Rand) Act {
	if a.Source == activity.Git {
		a.Repository = choose(r, l.p.Habits.Repos)
	}
	switch a.Verb {
	case activity.Commit, activity.UnreviewedCommit, activity.ForcePush:
		a.Path = choose(r, sources)
		a.Detail = choose(r, verbs) + " " + choose(r, things)
	case activity.ReviewSubmitted:
		a.Detail = "review of " + choose(r, things)
	case activity.SecretCommitted:
		a.Path = choose(r, leaky)
		a.Detail = "add settings for " + choose(r, things)
	case activity.VulnerableDependency:
		a.Path = "go.mod"
		a.Detail = choose(r, packages)
	case activity.LargeFile:
		a.Path = choose(r, heavy)
		a.Bytes = int64(60+r.IntN(400)) << 20
		a.Detail = "add " + a.Path
	case activity.SignIn:
		a.Detail = "sign-in"
	case activity.MFADenied:
		a.Detail = "push notification denied"
	case activity.OffHoursAccess:
		a.Resource = choose(r, buckets)
		a.Detail = "access to " + a.Resource
	case activity.CrossAccountAccess:
		a.Resource = choose(r, accountsX)
		a.Detail = "role assumed in account " + a.Resource
	case activity.PrivilegeEscalation:
		a.Resource = choose(r, policies)
		a.Detail = a.Resource + " attached"
	case activity.ServiceAccountKey:
		a.Resource = fmt.Sprintf("svc-%s", l.p.Habits.Repos[0])
		a.Detail = "access key for " + a.Resource
	case activity.UnusedPermission:
		a.Resource = choose(r, buckets)
		a.Detail = "permission on " + a.Resource + " not used for 90 days"
	case activity.DataExport:
		a.Resource = choose(r, reports)
		a.Bytes = int64(1+r.IntN(500)) << 20
		a.Detail = "export of " + a.Resource
	case activity.MalwareDetected:
		a.Detail = choose(r, malware)
	case activity.DataExfiltration:
		a.Detail = "unusual upload to a personal drive"
	case activity.PhishingClick:
		a.Detail = "link followed: " + choose(r, phish)
	case activity.PhishingReported:
		a.Detail = "mail reported: " + choose(r, phish)
	case activity.FailedAuthentication:
		a.Detail = "ten failed sign-ins in five minutes"
	case activity.PolicyViolation:
		a.Detail = choose(r, broken)
	case activity.TicketUpdated:
		a.Ticket = fmt.Sprintf("WORK-%d", 100+r.IntN(900))
		a.Detail = choose(r, verbs) + " " + choose(r, things)
	case activity.OverdueSecurityTicket, activity.SecurityTicketClosed:
		a.Ticket = l.ticket(l.number)
		l.number++
		a.Detail = a.Ticket + " is past its date"
	case activity.ExportApproved:
		a.Ticket = l.ticket(90)
		a.Resource = choose(r, buckets)
		a.Detail = "export of " + a.Resource + " approved"
	}
	return a
}
