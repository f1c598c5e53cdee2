package exercise

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Results are learners' records: the answer of GET /v1/results, written to a file before the records are deleted.
type Results struct {
	At      time.Time      `json:"at"`   // wall clock
	Mark    string         `json:"mark"` // identifies the state of the records; it changes with them
	Lessons []LessonResult `json:"lessons"`
	Drills  []DrillResult  `json:"drills"`
}

// LessonResult is one lesson of a person. Times are the lab's.
type LessonResult struct {
	Person      string          `json:"person"` // an id of the roster
	Name        string          `json:"name"`   // as the roster has it
	Module      string          `json:"module"`
	State       string          `json:"state"` // writing, ready, passed, failed or refused
	Asked       time.Time       `json:"asked"`
	Attempts    []AttemptResult `json:"attempts"`
	Share       float64         `json:"share"`                 // of right answers, 0 to 1, once it has ended
	Ended       time.Time       `json:"ended,omitzero"`        // passed or failed
	Certificate string          `json:"certificate,omitempty"` // its number
}

// AttemptResult is one try at a lesson's quiz.
type AttemptResult struct {
	Number    int       `json:"number"`
	Correct   int       `json:"correct"`
	Questions int       `json:"questions"`
	Passed    bool      `json:"passed"`
	At        time.Time `json:"at"`
}

// DrillResult is one message of a phishing campaign, and what its reader did. Times are the lab's; zero means not yet.
type DrillResult struct {
	Person    string    `json:"person"`
	Name      string    `json:"name"`
	Drill     string    `json:"drill"` // the campaign's id
	Lure      string    `json:"lure"`
	Sent      time.Time `json:"sent"`
	Opened    time.Time `json:"opened,omitzero"`
	Clicked   time.Time `json:"clicked,omitzero"`
	Submitted time.Time `json:"submitted,omitzero"`
	Reported  time.Time `json:"reported,omitzero"`
}

var resultsHead = []string{
	"record", "person", "name", "subject", "state", "begun", "attempts", "correct", "questions", "share", "ended",
	"certificate",
	"opened", "clicked", "submitted", "reported",
}

// WriteCSV writes one line for each lesson and each message, as CSV by RFC 4180 with a header. A cell that a
// spreadsheet would take for a formula begins with an apostrophe.
func (r Results) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := [][]string{resultsHead}
	for _, l := range r.Lessons {
		row := []string{
			"lesson", l.Person, l.Name, l.Module, l.State, stamp(l.Asked), strconv.Itoa(len(l.Attempts)), "", "", "",
			stamp(l.Ended), l.Certificate, "", "", "", "",
		}
		if n := len(l.Attempts); n > 0 {
			last := l.Attempts[n-1]
			row[7], row[8] = strconv.Itoa(last.Correct), strconv.Itoa(last.Questions)
		}
		if !l.Ended.IsZero() {
			row[9] = strconv.FormatFloat(l.Share, 'f', 2, 64)
		}
		rows = append(rows, row)
	}
	for _, d := range r.Drills {
		rows = append(rows, []string{
			"drill", d.Person, d.Name, d.Lure, d.Drill, stamp(d.Sent), "", "", "", "", "", "",
			stamp(d.Opened), stamp(d.Clicked), stamp(d.Submitted), stamp(d.Reported),
		})
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain(cell)
		}
		if err := out.Write(row); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// plain prevents a spreadsheet from taking a cell for a formula: https://owasp.org/www-community/attacks/CSV_Injection.
func plain(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", []rune(cell)[0]) {
		return "'" + cell
	}
	return cell
}
