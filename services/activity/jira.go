package activity

// Jira is the source of tickets, their due dates and approvals.
const Jira Source = "jira"

// Verbs of jira that carry risk, then those that are used only by patterns, baselines and states.
const (
	OverdueSecurityTicket Verb = "jira.overdue_security_ticket"

	TicketUpdated        Verb = "jira.updated"
	ExportApproved       Verb = "jira.export_approved"
	SecurityTicketClosed Verb = "jira.security_ticket_closed"
)

var jira = Row{
	Source: Jira, Group: Learning, Vendor: true,
	Accounts: []string{"jira", "email"},
	Verbs: []VerbRow{
		{OverdueSecurityTicket, "has an overdue security ticket", "has %d overdue security tickets"},
		{Verb: TicketUpdated},
		{Verb: ExportApproved},
		{Verb: SecurityTicketClosed},
	},
}
