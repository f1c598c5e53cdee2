package seed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/httpjson"
)

// A check is repeated until it succeeds. When its time is over, the error is the last one.
func TestAProofIsTriedUntilItSucceedsOrItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tries := 0
		if err := retry(ctx, func() error {
			if tries++; tries < 5 {
				return errors.New("answered 503")
			}
			return nil
		}); err != nil || tries != 5 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		tries = 0
		if err := retry(
			ctx,
			func() error { tries++; return errors.New("answered 503") },
		); err == nil || err.Error() != "answered 503" ||
			tries < 100 {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
}

// A 503 is asked again; any other error is returned at once.
func TestWhatIsAwayIsAskedAgainAndWhatIsRefusedIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		away := func(until int) func() error {
			tries = 0
			return func() error {
				if tries++; tries < until {
					return fmt.Errorf("ask: %w", httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away", "not yet"))
				}
				return nil
			}
		}
		if err := retryUnavailable(t.Context(), away(100)); err != nil || tries != 100 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		if err := retryUnavailable(t.Context(), away(1e9)); err == nil || tries < 500 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		tries = 0
		if err := retryUnavailable(t.Context(), func() error {
			tries++
			return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_records", "no")
		}); err == nil || tries != 1 {
			t.Errorf("refused for good, after %d tries: %v", tries, err)
		}
	})
}
