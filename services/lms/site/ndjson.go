package site

import (
	"net/http"
)

// NDJSONWriter says whether anything was written, and of which type it is.
type NDJSONWriter struct {
	W     http.ResponseWriter
	Wrote bool
}

// Write implements io.Writer; the first one sets the media type.
func (w *NDJSONWriter) Write(p []byte) (int, error) {
	if !w.Wrote {
		w.Wrote = true
		w.W.Header().Set("Content-Type", "application/x-ndjson")
	}
	return w.W.Write(p)
}
