package activity

// IAM is the source of sign-ins, privileges and keys.
const IAM Source = "iam"

// Verbs of iam that carry risk, then those that are used only by patterns, baselines and states.
const (
	PrivilegeEscalation Verb = "iam.privilege_escalation"
	ServiceAccountKey   Verb = "iam.service_account_key"
	OffHoursAccess      Verb = "iam.off_hours_access"
	CrossAccountAccess  Verb = "iam.cross_account_access"
	UnusedPermission    Verb = "iam.unused_permission"

	SignIn     Verb = "iam.sign_in"
	DataExport Verb = "iam.data_export"
	MFADenied  Verb = "iam.mfa_denied"
)

var iam = Row{
	Source: IAM, Group: Access, Vendor: true,
	Accounts: []string{"okta", "aws"},
	Verbs: []VerbRow{
		{PrivilegeEscalation, "gained higher privileges", "gained higher privileges %d times"},
		{ServiceAccountKey, "created a long-lived service account key", "created %d long-lived service account keys"},
		{OffHoursAccess, "reached a sensitive resource off hours", "reached sensitive resources off hours %d times"},
		{CrossAccountAccess, "reached into another account", "reached into another account %d times"},
		{UnusedPermission, "holds a permission that is not used", "holds %d permissions that are not used"},
		{DataExport, "exported data", "exported data %d times"},
		{Verb: SignIn},
		{Verb: MFADenied},
	},
}
