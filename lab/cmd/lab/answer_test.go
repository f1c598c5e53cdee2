package main

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/services/httpjson"
)

// The status of a workload's answer decides on the exit code, however often the error is wrapped.
func TestTheStatusOfAnAnswerBecomesTheDesignedExitCode(t *testing.T) {
	for status, want := range map[int]int{
		http.StatusBadRequest: lab.ExitUsage, http.StatusNotFound: lab.ExitUsage,
		http.StatusRequestEntityTooLarge: lab.ExitUsage, http.StatusUnprocessableEntity: lab.ExitUsage,
		http.StatusConflict: lab.ExitConflict, http.StatusGatewayTimeout: lab.ExitTimeout,
		http.StatusUnauthorized: lab.ExitPartly, http.StatusForbidden: lab.ExitPartly,
		http.StatusTooManyRequests: lab.ExitPartly, http.StatusInternalServerError: lab.ExitPartly,
		http.StatusServiceUnavailable: lab.ExitPartly,
	} {
		err := fmt.Errorf("do it: %w", errors.Join(httpjson.Errorf(status, "code", "why")))
		if got := exitCode(err); got != want {
			t.Errorf("%d: exit code %d, want %d", status, got, want)
		}
	}
	if got := exitCode(errors.New("derived 1, but 2 was stored")); got != lab.ExitAssertion {
		t.Errorf("an assertion that failed: exit code %d, want %d", got, lab.ExitAssertion)
	}
}
