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
func (b *NDJSONWriter) Write(p []byte) (int, error) {
	if !b.Wrote {
		b.Wrote = true
		b.W.Header().Set("Content-Type", "application/x-ndjson")
	}
	return b.W.Write(p)
}
