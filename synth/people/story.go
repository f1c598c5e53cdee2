package people

import (
	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// Story is a storyline: a security incident of a person.
type Story string

// The storylines.
const (
	LeakedSecret   Story = "leaked-secret"
	TokenTheft     Story = "token-theft"
	Compromised    Story = "compromised-account"
	Insider        Story = "insider-export"
	PrivilegeCreep Story = "privilege-creep"
	Burnout        Story = "burnout"
	PhishToMalware Story = "phish-to-malware"
	MFAFatigue     Story = "mfa-fatigue"
	Dormant        Story = "dormant-account"
	OffBoarding    Story = "off-boarding"
	SupplyChain    Story = "supply-chain"
	SharedKey      Story = "shared-service-key"
)

// Stories lists the storylines.
var Stories = []Story{LeakedSecret, TokenTheft, Compromised, Insider, PrivilegeCreep, Burnout, PhishToMalware,
	MFAFatigue, Dormant, OffBoarding, SupplyChain, SharedKey}

// Deed is an act of a storyline. An intruder's acts happen at their exact time; acts a day or more after the beginning
// happen in working hours.
type Deed struct {
	Verb   activity.Verb
	Count  int     // the least number of times
	More   int     // up to this many times more
	Chance float64 // the probability that it happens; 0 means always
	After  float64 // hours from the beginning of the storyline to the first one
	Every  float64 // hours from one to the next
	Bytes  int64
}

// Tale describes a storyline. Its level is fixed here, independent of any score.
type Tale struct {
	Level risk.Level
	Began [2]float64 // days before the end of history, between these two
	Deeds []Deed
	Near  []Deed // of the near miss, which looks alike and is harmless
}

const gib = 1 << 30

// Tales gives each storyline its level and its acts, which several sources report.
var Tales = map[Story]Tale{
	// A key is pushed and found by a bot within minutes; a new key is created at once.
	LeakedSecret: {risk.High, [2]float64{4, 9}, []Deed{
		{Verb: activity.SecretCommitted, Count: 1, More: 1, Every: .05},
		{Verb: activity.CrossAccountAccess, Count: 1, More: 1, After: .3, Every: .4},
		{Verb: activity.ServiceAccountKey, Count: 1, After: 1.5},
		{Verb: activity.PolicyViolation, Count: 1, Chance: .7, After: 20},
	}, []Deed{ // pushed, noticed, and properly replaced the next day
		{Verb: activity.SecretCommitted, Count: 1},
		{Verb: activity.ServiceAccountKey, Count: 1, After: 30},
	}},
	TokenTheft: {risk.Critical, [2]float64{4, 8}, []Deed{
		{Verb: activity.SecretCommitted, Count: 1, Chance: .6},
		{Verb: activity.CrossAccountAccess, Count: 2, More: 1, After: .2, Every: .3},
		{Verb: activity.FailedAuthentication, Count: 1, Chance: .8, After: .1},
		{Verb: activity.PrivilegeEscalation, Count: 1, After: 1},
		{Verb: activity.OffHoursAccess, Count: 1, After: 3},
		{Verb: activity.DataExfiltration, Count: 1, After: 5},
	}, []Deed{ // a release into another account, watched at night
		{Verb: activity.CrossAccountAccess, Count: 3, Every: .5},
		{Verb: activity.OffHoursAccess, Count: 1, After: 6},
	}},
	Compromised: {risk.Critical, [2]float64{17, 19}, []Deed{
		{Verb: activity.FailedAuthentication, Count: 2, Every: .5},
		{Verb: activity.OffHoursAccess, Count: 5, Every: 2.4},
		{Verb: activity.CrossAccountAccess, Count: 5, After: 2.4, Every: 1},
		{Verb: activity.UnusedPermission, Count: 11, After: 4.8, Every: .4},
		{Verb: activity.PrivilegeEscalation, Count: 2, After: 7, Every: 2.4},
		{Verb: activity.ServiceAccountKey, Count: 1, After: 12},
		{Verb: activity.MalwareDetected, Count: 1, After: 14},
		{Verb: activity.DataExfiltration, Count: 1, After: 19},
		{Verb: activity.PolicyViolation, Count: 1, After: 22},
	}, []Deed{ // locked out on a journey, and back at work
		{Verb: activity.FailedAuthentication, Count: 2, Every: .5},
		{Verb: activity.OffHoursAccess, Count: 2, After: 1, Every: 24},
	}},
	Insider: {risk.Critical, [2]float64{5, 10}, []Deed{
		{Verb: activity.OffHoursAccess, Count: 2, Every: 24},
		{Verb: activity.DataExport, Count: 2, After: 24, Every: 24, Bytes: 3 * gib},
		{Verb: activity.DataExfiltration, Count: 1, Chance: .8, After: 50},
	}, []Deed{ // the same night and export, approved before
		{Verb: activity.ExportApproved, Count: 1, After: -48},
		{Verb: activity.OffHoursAccess, Count: 1},
		{Verb: activity.DataExport, Count: 1, After: 24, Bytes: 3 * gib},
	}},
	PrivilegeCreep: {risk.High, [2]float64{15, 19}, []Deed{
		{Verb: activity.PrivilegeEscalation, Count: 4, Every: 72},
		{Verb: activity.UnusedPermission, Count: 4, After: 24, Every: 72},
		{Verb: activity.PolicyViolation, Count: 1, Chance: .7, After: 200},
	}, []Deed{ // one right for a project that ended early
		{Verb: activity.PrivilegeEscalation, Count: 1},
		{Verb: activity.UnusedPermission, Count: 3, After: 24, Every: 48},
	}},
	Burnout: {risk.High, [2]float64{21, 23}, []Deed{
		{Verb: activity.ForcePush, Count: 5, Every: 84},
		{Verb: activity.OverdueSecurityTicket, Count: 6, After: 24, Every: 60},
		{Verb: activity.UnreviewedCommit, Count: 2, More: 1, After: 100, Every: 100},
		{Verb: activity.PolicyViolation, Count: 1, After: 340},
	}, []Deed{ // a hard week of rebasing
		{Verb: activity.ForcePush, Count: 3, Every: 48},
		{Verb: activity.OverdueSecurityTicket, Count: 2, After: 24, Every: 48},
	}},
	PhishToMalware: {risk.High, [2]float64{3, 8}, []Deed{
		{Verb: activity.PhishingClick, Count: 1},
		{Verb: activity.MalwareDetected, Count: 1, After: .3},
		{Verb: activity.FailedAuthentication, Count: 1, More: 1, After: 1.5, Every: .5},
		{Verb: activity.OffHoursAccess, Count: 1, Chance: .8, After: 5},
	}, []Deed{ // clicked, and then reported
		{Verb: activity.PhishingClick, Count: 1},
		{Verb: activity.PhishingReported, Count: 2, After: .1, Every: .1},
	}},
	MFAFatigue: {risk.High, [2]float64{3, 7}, []Deed{
		{Verb: activity.MFADenied, Count: 7, More: 4, Every: .02},
		{Verb: activity.FailedAuthentication, Count: 2, After: .1, Every: .1},
		{Verb: activity.SignIn, Count: 1, After: .3},
		{Verb: activity.OffHoursAccess, Count: 1, More: 1, After: .5, Every: .5},
		{Verb: activity.CrossAccountAccess, Count: 1, Chance: .8, After: 2},
	}, []Deed{ // all denied, and reported
		{Verb: activity.MFADenied, Count: 6, More: 4, Every: .02},
		{Verb: activity.FailedAuthentication, Count: 1, After: .1},
		{Verb: activity.PhishingReported, Count: 1, After: .3},
	}},
	Dormant: {risk.High, [2]float64{5, 9}, []Deed{
		{Verb: activity.FailedAuthentication, Count: 1, More: 1, Every: .2},
		{Verb: activity.OffHoursAccess, Count: 2, More: 1, After: .4, Every: 9},
		{Verb: activity.UnusedPermission, Count: 3, After: 2, Every: 1},
		{Verb: activity.CrossAccountAccess, Count: 1, Chance: .6, After: 8},
	}, []Deed{ // back from a long leave
		{Verb: activity.FailedAuthentication, Count: 2, Every: .2},
		{Verb: activity.UnusedPermission, Count: 2, After: 2, Every: 24},
	}},
	OffBoarding: {risk.High, [2]float64{4, 8}, []Deed{
		{Verb: activity.ExportApproved, Count: 1, After: -48},
		{Verb: activity.DataExport, Count: 1, More: 1, Every: .5, Bytes: 2 * gib},
		{Verb: activity.LargeFile, Count: 2, After: 2, Every: 2},
		{Verb: activity.DataExfiltration, Count: 1, After: 4},
		{Verb: activity.PolicyViolation, Count: 1, Chance: .8, After: 5},
		{Verb: activity.UnusedPermission, Count: 1, After: 48},
	}, []Deed{ // hands over and leaves
		{Verb: activity.ExportApproved, Count: 1, After: -48},
		{Verb: activity.DataExport, Count: 1, Bytes: 2 * gib},
		{Verb: activity.LargeFile, Count: 1, After: 2},
	}},
	SupplyChain: {risk.High, [2]float64{5, 10}, []Deed{
		{Verb: activity.VulnerableDependency, Count: 2, More: 1, Every: .2},
		{Verb: activity.UnreviewedCommit, Count: 1, More: 1, After: .5, Every: .3},
		{Verb: activity.MalwareDetected, Count: 1, After: 3},
		{Verb: activity.CrossAccountAccess, Count: 1, Chance: .8, After: 5},
	}, []Deed{ // taken back before it was built
		{Verb: activity.VulnerableDependency, Count: 2, Every: .2},
		{Verb: activity.UnreviewedCommit, Count: 1, After: .5},
	}},
	SharedKey: {risk.High, [2]float64{5, 10}, []Deed{
		{Verb: activity.ServiceAccountKey, Count: 1, More: 1, Every: .2},
		{Verb: activity.SecretCommitted, Count: 1, After: .7},
		{Verb: activity.CrossAccountAccess, Count: 2, More: 1, After: 4, Every: 2},
		{Verb: activity.PolicyViolation, Count: 1, Chance: .8, After: 20},
	}, []Deed{ // keys for two jobs, kept where they belong
		{Verb: activity.ServiceAccountKey, Count: 2, Every: 1},
		{Verb: activity.PolicyViolation, Count: 1, After: 24},
	}},
}

// place is one of the 50 places that a company of the mix Published repeats: 12, 8, 8, 4, 3, 6, 6 and 3 people of the
// roles, as careless as in the published tables. Those who should be HIGH have a storyline; twelve of the others have a
// near miss, one of each.
type place struct {
	role  risk.Role
	story Story
	slips Slips
	near  Near
}

func all(c float64) Slips { return Slips{c, c, c, c} }

var places = []place{
	{risk.BackendDeveloper, LeakedSecret, all(.72), Real},
	{risk.BackendDeveloper, SupplyChain, all(.68), Real},
	{risk.BackendDeveloper, PhishToMalware, all(.67), Real},
	{risk.BackendDeveloper, MFAFatigue, all(.66), Real},
	{risk.BackendDeveloper, Burnout, all(.56), Real},
	{risk.BackendDeveloper, LeakedSecret, all(.65), Real},
	{risk.BackendDeveloper, SharedKey, all(.65), Real},
	{risk.BackendDeveloper, SupplyChain, all(.45), NearMiss},
	{risk.BackendDeveloper, LeakedSecret, all(.41), NearMiss},
	{risk.BackendDeveloper, "", all(.38), Real},
	{risk.BackendDeveloper, SharedKey, all(.35), NearMiss},
	{risk.BackendDeveloper, "", all(.32), Real},

	{risk.FrontendDeveloper, PhishToMalware, all(.68), Real},
	{risk.FrontendDeveloper, SupplyChain, all(.66), Real},
	{risk.FrontendDeveloper, OffBoarding, all(.66), Real},
	{risk.FrontendDeveloper, LeakedSecret, all(.65), Real},
	{risk.FrontendDeveloper, OffBoarding, all(.42), NearMiss},
	{risk.FrontendDeveloper, "", all(.41), Real},
	{risk.FrontendDeveloper, PhishToMalware, all(.36), NearMiss},
	{risk.FrontendDeveloper, "", all(.36), Real},

	{risk.DevOpsEngineer, TokenTheft, all(.87), Real},
	{risk.DevOpsEngineer, TokenTheft, all(.85), Real},
	{risk.DevOpsEngineer, Insider, all(.51), Real},
	{risk.DevOpsEngineer, Burnout, all(.58), Real},
	{risk.DevOpsEngineer, PrivilegeCreep, all(.66), Real},
	{risk.DevOpsEngineer, SharedKey, all(.66), Real},
	{risk.DevOpsEngineer, LeakedSecret, all(.65), Real},
	{risk.DevOpsEngineer, PrivilegeCreep, all(.53), NearMiss},

	{risk.DevSecOpsEngineer, "", all(.29), Real},
	{risk.DevSecOpsEngineer, MFAFatigue, all(.26), NearMiss},
	{risk.DevSecOpsEngineer, "", all(.24), Real},
	{risk.DevSecOpsEngineer, "", all(.21), Real},

	{risk.CloudSecurityAnalyst, "", all(.24), Real},
	{risk.CloudSecurityAnalyst, Insider, all(.20), NearMiss},
	{risk.CloudSecurityAnalyst, "", all(.16), Real},

	{risk.DataAnalyst, OffBoarding, all(.66), Real},
	{risk.DataAnalyst, TokenTheft, all(.50), NearMiss},
	{risk.DataAnalyst, "", all(.45), Real},
	{risk.DataAnalyst, Burnout, all(.41), NearMiss},
	{risk.DataAnalyst, "", all(.37), Real},
	{risk.DataAnalyst, Dormant, all(.31), NearMiss},

	{risk.DataEngineer, Compromised, Slips{0, .58, .40, .32}, Real},
	{risk.DataEngineer, Insider, all(.48), Real},
	{risk.DataEngineer, PrivilegeCreep, all(.66), Real},
	{risk.DataEngineer, Dormant, Slips{0, .66, .6, .65}, Real},
	{risk.DataEngineer, SharedKey, all(.65), Real},
	{risk.DataEngineer, "", all(.49), Real},

	{risk.SRE, Compromised, Slips{0, .64, .44, .34}, Real},
	{risk.SRE, MFAFatigue, all(.65), Real},
	{risk.SRE, Compromised, all(.52), NearMiss},
}
