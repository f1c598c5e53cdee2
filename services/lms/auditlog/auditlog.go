// Package auditlog shows the learning system's audit to instructors, and hands it out to be verified elsewhere. The
// chain itself is written with what it is about, by package store.
package auditlog

import (
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
)

// Log serves the audit. Its methods are safe for concurrent use.
type Log struct {
	Store *Store
	site  *site.Site
}

// Store reads the audit.
type Store struct{ *store.Store }

// New makes a Log.
func New(db *store.Store, pages *site.Site) *Log { return &Log{Store: &Store{db}, site: pages} }
