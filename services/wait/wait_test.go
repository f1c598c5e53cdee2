package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestForLastsAsLongAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := For(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Hour {
			t.Errorf("it lasted %s, want an hour", took)
		}
	})
}

func TestForReturnsTheCauseWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the lab is ending")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(why) })
		began := time.Now()
		if err := For(ctx, time.Hour); !errors.Is(err, why) {
			t.Errorf("the error is %v, want %v", err, why)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it lasted %s, want a minute", took)
		}
	})
}
