// Package auditlog shows the learning system's audit log to instructors and exports it for verification. Package store
// writes the audit chain, each row together with the change that it reports.
package auditlog

import (
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
)

// Log serves the audit log. Its methods are safe for concurrent use.
type Log struct {
	Store *Store
	site  *site.Site
}

// Store reads the audit log.
type Store struct{ *store.Store }

// New returns a Log.
func New(db *store.Store, pages *site.Site) *Log { return &Log{Store: &Store{db}, site: pages} }
