package matrix

import (
	"maps"
	"testing"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// An entry belongs to the caller with its serial number, or else to the stranger who is refused for its reason.
func TestAReasonIsFoundBySerialNumberOrElseByTheStranger(t *testing.T) {
	began := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	refused := string(topology.Refused)
	serials := map[string]*Cell{
		"lms 1a":       {Caller: "sim-git"},
		"collector 2b": {Caller: "sim-jira"},
	}
	entries := []audit.Entry{
		{Outcome: refused, Serial: "1a", Reason: "not_a_caller", At: began},
		{Outcome: refused, Serial: "2b", Reason: "not_a_caller", At: began},                  // of another callee
		{Outcome: string(topology.Allowed), Serial: "1a", Reason: "allowed", At: began},      // not a refusal
		{Outcome: refused, Reason: "plaintext", At: began.Add(time.Millisecond)},             // no certificate was read
		{Outcome: refused, Reason: "tls_version", At: began.Add(-time.Millisecond)},          // before the matrix
		{Outcome: refused, Serial: "3c", Reason: "expired", At: began.Add(time.Millisecond)}, // no caller of the matrix
	}
	want := map[string]string{"sim-git": "not_a_caller", Plaintext: "plaintext"}
	if got := reasonsOf(entries, "lms", serials, began); !maps.Equal(got, want) {
		t.Errorf("the reasons are %v, want %v", got, want)
	}
}
