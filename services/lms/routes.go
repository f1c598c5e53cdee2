package lms

import "net/http"

// guessable are the pages at which a stranger could try what they do not know: what fails there is counted.
var guessable = map[string]bool{
	"POST /sign-in":               true,
	"GET /sign-in/callback":       true,
	"GET /verify":                 true,
	"GET /mailbox/{mail}":         true,
	"GET /mailbox/{mail}/link":    true,
	"POST /mailbox/{mail}/link":   true,
	"POST /mailbox/{mail}/report": true,
}

// routes are all pages. What is not here does not exist.
func (l *LMS) routes() []page {
	return []page{
		{"GET /{$}", signedIn, l.showHome},
		{"GET /sign-in", anyone, l.showSignIn},
		{"POST /sign-in", anyone, l.doSignIn},
		{"POST /sign-in/certificate", anyone, l.doCertificate},
		{"GET /sign-in/provider", anyone, l.doProvider},
		{"GET /sign-in/callback", anyone, l.doCallback},
		{"POST /sign-out", signedIn, l.doSignOut},
		{"GET /training", learners, l.showTraining},
		{"POST /training", learners, l.doStart},
		{"GET /training/{lesson}", signedIn, l.showLesson},
		{"GET /training/{lesson}/progress", signedIn, l.showProgress},
		{"GET /training/{lesson}/quiz", learners, l.showQuiz},
		{"POST /training/{lesson}/quiz", learners, l.doQuiz},
		{"GET /training/{lesson}/result", signedIn, l.showResult},
		{"GET /certificates/{lesson}", signedIn, l.showCertificate},
		{"GET /verify", anyone, l.showVerify},
		{"GET /xapi", instructors, l.showXAPI},
		{"GET /mailbox", learners, l.showMailbox},
		{"GET /mailbox/{mail}", learners, l.showMail},
		{"GET /mailbox/{mail}/link", learners, l.showLink},
		{"POST /mailbox/{mail}/link", learners, l.doSubmit},
		{"POST /mailbox/{mail}/report", learners, l.doReport},
		{"GET /drills", instructors, l.showDrills},
		{"POST /drills", instructors, l.doDrill},
		{"GET /drills/{campaign}", instructors, l.showDrill},
		{"GET /team", leaders, l.showTeam},
		{"GET /organisation", instructors, l.showOrganisation},
		{"GET /people", instructors, l.showPeople},
		{"GET /people/{person}", signedIn, l.showPerson},
		{"GET /people/{person}/reasons/{reason}", instructors, l.showPersonsReason},
		{"GET /reasons/{reason}", learners, l.showOwnReason},
		{"GET /exercises", instructors, l.showExercises},
		{"GET /audit", instructors, l.showAudit},
		{"GET /console", instructors, l.showConsole},
		{"GET /console/events", instructors, l.showConsoleEvents},
		{"GET /console/identities", instructors, l.showIdentities},
		{"GET /console/matrix", instructors, l.showMatrix},
		{"GET /console/records", instructors, l.showRecords},
		{"GET /console/results/{file}", instructors, l.showResults},
		{"GET /console/story", instructors, l.showStory},
		{"POST /console/hints", instructors, l.doHint},
		{"POST /console/identities", admins, l.doIdentity},
		{"POST /console/orders", instructors, l.doOrder},
	}
}

// Pages is the handler for people.
func (l *LMS) Pages() http.Handler {
	return l.handler(l.routes(), guessable, l.withSession)
}

// known finds who asks; somebody whose certificate was revoked is refused.
func (l *LMS) known(v *visit) error {
	if err := l.unrevoked(v); err != nil {
		return err
	}
	return l.recognise(v)
}
