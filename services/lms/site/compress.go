package site

import (
	"compress/gzip"
	"net/http"
	"slices"
	"strings"
	"sync"
)

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a constant that exists
	return z
}}

// compressed compresses text and SVG with gzip for clients that accept it.
func compressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		if !accepts(r.Header.Get("Accept-Encoding")) {
			next.ServeHTTP(w, r)
			return
		}
		z := &gzipWriter{ResponseWriter: w}
		defer z.close()
		next.ServeHTTP(z, r)
	})
}

// accepts reports whether a header Accept-Encoding lists gzip.
func accepts(encodings string) bool {
	return slices.ContainsFunc(strings.Split(encodings, ","), func(e string) bool {
		name, q, _ := strings.Cut(strings.TrimSpace(e), ";")
		return name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0"
	})
}

// gzipWriter is a ResponseWriter that decides at the header whether the body is compressed.
type gzipWriter struct {
	http.ResponseWriter
	gzip    *gzip.Writer
	decided bool
}

// WriteHeader implements http.ResponseWriter.
func (w *gzipWriter) WriteHeader(status int) {
	if !w.decided {
		w.decided = true
		t := w.Header().Get("Content-Type")
		if status != http.StatusNoContent && status != http.StatusNotModified && t != EventStream &&
			(strings.HasPrefix(t, "text/") || strings.HasPrefix(t, "image/svg")) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Del("Content-Length")
			w.gzip = gzips.Get().(*gzip.Writer)
			w.gzip.Reset(w.ResponseWriter)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *gzipWriter) Write(b []byte) (int, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.gzip != nil {
		return w.gzip.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// EventStream is the media type of server-sent events. They are not compressed: gzip would delay them.
const EventStream = "text/event-stream"

// Unwrap lets http.ResponseController reach the connection.
func (w *gzipWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *gzipWriter) close() {
	if w.gzip == nil {
		return
	}
	_ = w.gzip.Close() // fails only if the client has disconnected
	gzips.Put(w.gzip)
}
