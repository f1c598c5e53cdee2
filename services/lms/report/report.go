// Package report serves the pages about risk: a learner sees their own, a manager the team's, and an instructor
// everyone's and the organisation's.
package report

import (
	"log/slog"
	"sync"
	"time"

	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/training"
)

// Config is what Reports need.
type Config struct {
	Now func() time.Time // the wall clock
	Log *slog.Logger
}

// Reports serves the pages about risk. Its methods are safe for concurrent use.
type Reports struct {
	cfg      Config
	store    *recordStore
	scorer   *riskclient.Client
	site     *site.Site
	training *training.Training

	mu    sync.Mutex
	teams map[string]*riskclient.Cache[teamFacts] // by the leader's id
}

// recordStore reads training records.
type recordStore struct{ *store.Store }

// New returns Reports.
func New(
	cfg Config, db *store.Store, scorer *riskclient.Client, pages *site.Site, lessons *training.Training,
) *Reports {
	return &Reports{
		cfg: cfg, store: &recordStore{db}, scorer: scorer, site: pages, training: lessons,
		teams: map[string]*riskclient.Cache[teamFacts]{},
	}
}
