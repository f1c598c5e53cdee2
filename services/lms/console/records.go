package console

import (
	"fmt"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
)

// recordsView is the model of the page on which learners' records are deleted.
type recordsView struct {
	pageFrame
	Learners, Lessons, Attempts, Certificates, Mails int
	Orders                                           []placed
}

// deleteWord is the word that confirms the deletion.
const deleteWord = "delete"

// ShowRecords shows the number of learners' records, with a form that deletes them.
func (c *Console) ShowRecords(req *site.Request) error {
	m := recordsView{pageFrame: c.frameOf(req, "/console/records")}
	err := c.store.Pool.QueryRow(req.Ctx(), `SELECT
		(SELECT count(*) FROM (SELECT person FROM training.lesson UNION SELECT person FROM training.mail) p),
		(SELECT count(*) FROM training.lesson), (SELECT count(*) FROM training.attempt),
		(SELECT count(*) FROM training.completion WHERE passed),
		(SELECT count(*) FROM training.mail)`).Scan(&m.Learners, &m.Lessons, &m.Attempts, &m.Certificates, &m.Mails)
	if err != nil {
		return fmt.Errorf("count records: %w", err)
	}
	if m.Orders, err = c.store.orders(req.Ctx(), 6, exercise.OrderReset, exercise.OrderForget); err != nil {
		return err
	}
	return c.site.Render(req, "console_records", "Learners' records", "/console", m)
}
