package operator

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// Rescore computes a person's score at the time at from the scorer's log up to the position asOf, whether or not more
// has arrived since. It uses the risk profile called profile, or the lab's own if profile is "". The assessments in the
// audit have time, position and profile. It fails if a different score was stored at that position.
func Rescore(
	ctx context.Context,
	o *Operator,
	person string,
	at time.Time,
	asOf int64,
	profile string,
) (scorerapi.Rescored, error) {
	var r scorerapi.Rescored
	name, err := o.Serving(scorerapi.RouteRisk)
	if err != nil {
		return r, err
	}
	query := url.Values{"at": {at.Format(time.RFC3339Nano)}, "as_of": {strconv.FormatInt(asOf, 10)}}
	if profile != "" {
		query.Set("profile", profile)
	}
	path := scorerapi.RouteRisk.For(person) + "?" + query.Encode()
	if err := o.Call(ctx, name, http.MethodGet, path, nil, &r); IsNotFound(err) {
		return r, &lab.Error{Code: lab.ExitUsage, What: "rescore " + person, Why: err, Try: FindPeople}
	} else if err != nil {
		return r, err
	}
	if s := r.Stored; s != nil && s.Version == r.Version && s.Score != r.Score {
		return r, fmt.Errorf(
			"rescore %s at position %d: derived %d, but %d was stored (in 1e-12)",
			person,
			asOf,
			r.Score,
			s.Score,
		)
	}
	return r, nil
}
