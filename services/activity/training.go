package activity

// Training is the source of lessons, assessments and drills; the learning system reports it itself.
const Training Source = "training"

// Verbs of training that carry risk, then those that matter to patterns, baselines and states alone.
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
