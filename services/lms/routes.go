package lms

import (
	"net/http"

	"example.org/security-training/services/lms/site"
)

// guessable are the pages at which a link, a number or a state could be guessed. Failed requests to them are limited.
var guessable = map[string]bool{
	"POST /sign-in":               true,
	"GET /sign-in/callback":       true,
	"GET /verify":                 true,
	"GET /mailbox/{mail}":         true,
	"GET /mailbox/{mail}/link":    true,
	"POST /mailbox/{mail}/link":   true,
	"POST /mailbox/{mail}/report": true,
}

// page is site.Page, for a table without field names.
type page struct {
	Pattern string
	Access  site.Access
	Show    func(*site.Request) error
}

// routes is the table of all pages.
func (l *LMS) routes() []page {
	return []page{
		{"GET /{$}", site.SignedIn, l.report.ShowHome},
		{"GET /sign-in", site.Anyone, l.auth.ShowSignIn},
		{"POST /sign-in", site.Anyone, l.auth.DoSignIn},
		{"POST /sign-in/certificate", site.Anyone, l.auth.DoCertificate},
		{"GET /sign-in/provider", site.Anyone, l.auth.DoProvider},
		{"GET /sign-in/callback", site.Anyone, l.auth.DoCallback},
		{"POST /sign-out", site.SignedIn, l.auth.DoSignOut},
		{"GET /training", site.Learners, l.training.ShowTraining},
		{"POST /training", site.Learners, l.training.DoStart},
		{"GET /training/{lesson}", site.SignedIn, l.training.ShowLesson},
		{"GET /training/{lesson}/progress", site.SignedIn, l.training.ShowProgress},
		{"GET /training/{lesson}/quiz", site.Learners, l.training.ShowQuiz},
		{"POST /training/{lesson}/quiz", site.Learners, l.training.DoQuiz},
		{"GET /training/{lesson}/result", site.SignedIn, l.training.ShowResult},
		{"GET /certificates/{lesson}", site.SignedIn, l.training.ShowCertificate},
		{"GET /verify", site.Anyone, l.training.ShowVerify},
		{"GET /xapi", site.Instructors, l.training.ShowXAPI},
		{"GET /mailbox", site.Learners, l.phishing.ShowMailbox},
		{"GET /mailbox/{mail}", site.Learners, l.phishing.ShowMessage},
		{"GET /mailbox/{mail}/link", site.Learners, l.phishing.ShowLink},
		{"POST /mailbox/{mail}/link", site.Learners, l.phishing.DoSubmit},
		{"POST /mailbox/{mail}/report", site.Learners, l.phishing.DoReport},
		{"GET /drills", site.Instructors, l.phishing.ShowCampaigns},
		{"POST /drills", site.Instructors, l.phishing.DoBegin},
		{"GET /drills/{campaign}", site.Instructors, l.phishing.ShowCampaign},
		{"GET /team", site.Leaders, l.report.ShowTeam},
		{"GET /organisation", site.Instructors, l.report.ShowOrganisation},
		{"GET /people", site.Instructors, l.report.ShowPeople},
		{"GET /people/{person}", site.SignedIn, l.report.ShowPerson},
		{"GET /people/{person}/reasons/{reason}", site.Instructors, l.report.ShowPersonsReason},
		{"GET /reasons/{reason}", site.Learners, l.report.ShowOwnReason},
		{"GET /exercises", site.Instructors, l.console.ShowExercises},
		{"GET /audit", site.Instructors, l.auditlog.Show},
		{"GET /console", site.Instructors, l.console.Show},
		{"GET /console/events", site.Instructors, l.console.ShowEvents},
		{"GET /console/identities", site.Instructors, l.console.ShowIdentities},
		{"GET /console/matrix", site.Instructors, l.console.ShowMatrix},
		{"GET /console/records", site.Instructors, l.console.ShowRecords},
		{"GET /console/results/{file}", site.Instructors, l.training.ShowResults},
		{"GET /console/story", site.Instructors, l.console.ShowStory},
		{"POST /console/hints", site.Instructors, l.console.DoHint},
		{"POST /console/identities", site.Admins, l.console.DoIdentity},
		{"POST /console/orders", site.Instructors, l.console.DoOrder},
	}
}

// Pages is the handler of the people's port.
func (l *LMS) Pages() http.Handler {
	var pages []site.Page
	for _, p := range l.routes() {
		pages = append(pages, site.Page(p))
	}
	return l.site.Handler(pages, guessable, l.auth.WithSession)
}
