package control

import (
	"fmt"
	"os"
	"strconv"
)

// Milestones records how far `lab up` has brought a lab, so that the next `lab up` goes on from there. Each milestone
// is a file in the lab's folder.
type Milestones struct{ dir StateDir }

// Milestones returns the milestones of the lab of f.
func (f StateDir) Milestones() Milestones { return Milestones{f} }

func (m Milestones) seeded() string { return m.dir.Path("seeded") }

func (m Milestones) proven() string { return m.dir.Path("proven") }

// MarkSeeded records that the history has been delivered, up to position of the scorer's event log.
func (m Milestones) MarkSeeded(position int64) error {
	return Replace(m.seeded(), []byte(strconv.FormatInt(position, 10)), 0o600)
}

// Seeded says whether the history has been delivered.
func (m Milestones) Seeded() bool {
	_, err := os.Stat(m.seeded())
	return err == nil
}

// SeededAt is the position of the scorer's event log at which the history ends.
func (m Milestones) SeededAt() (int64, error) {
	b, err := os.ReadFile(m.seeded())
	if err != nil {
		return 0, fmt.Errorf("read the seeded state: %w", err)
	}
	return strconv.ParseInt(string(b), 10, 64)
}

// MarkProven records that the lab has been checked from end to end and works.
func (m Milestones) MarkProven() error { return Replace(m.proven(), nil, 0o600) }

// Proven says whether the lab has been checked from end to end. It has not if `up` was interrupted before the check.
func (m Milestones) Proven() bool {
	_, err := os.Stat(m.proven())
	return err == nil
}
