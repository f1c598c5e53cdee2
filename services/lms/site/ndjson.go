package site

import (
	"net/http"
)

// NDJSONWriter writes newline-delimited JSON to W. Until Wrote is set, an error can still be answered with its status.
type NDJSONWriter struct {
	W     http.ResponseWriter
	Wrote bool
}

// End finishes an answer whose last write failed with err, or nil. A failed answer without a line returns err. One that
// is partly sent aborts the connection: otherwise the client would take the part for the whole.
func (w *NDJSONWriter) End(err error) error {
	switch {
	case err != nil && w.Wrote:
		panic(http.ErrAbortHandler)
	case err == nil && !w.Wrote:
		w.W.Header().Set("Content-Type", "application/x-ndjson")
		w.W.WriteHeader(http.StatusOK)
	}
	return err
}

// Write implements io.Writer. The first call sets the media type.
func (w *NDJSONWriter) Write(p []byte) (int, error) {
	if !w.Wrote {
		w.Wrote = true
		w.W.Header().Set("Content-Type", "application/x-ndjson")
	}
	return w.W.Write(p)
}
