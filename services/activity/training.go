package activity

// Training is the source of lessons, assessments and phishing campaigns. The learning system reports its events.
const Training Source = "training"

// Verbs of training that carry risk, then those that are used only by patterns, baselines and states.
const (
	TrainingStale    Verb = "training.stale"
	OverdueModule    Verb = "training.overdue_module"
	FailedAssessment Verb = "training.failed_assessment"

	TrainingPassed Verb = "training.passed"
)

var training = Row{
	Source: Training, Group: Learning,
	Verbs: []VerbRow{
		{TrainingStale, "has had no training for over 180 days", "has had no training for over 180 days (%d notices)"},
		{OverdueModule, "has an overdue training module", "has %d overdue training modules"},
		{FailedAssessment, "failed an assessment", "failed %d assessments"},
		{Verb: TrainingPassed},
	},
}
