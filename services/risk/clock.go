package risk

import "time"

// Epoch is T0, the end of the lab's generated history and the start of its clock. Lab time is Epoch + elapsed · pace.
var Epoch = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

// Clock is the lab's time as GET /v1/clock answers it.
type Clock struct {
	Now  time.Time `json:"now"`
	Pace float64   `json:"pace"` // lab seconds per second
}
