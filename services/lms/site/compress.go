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
		z := &zipped{ResponseWriter: w}
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

// zipped is a ResponseWriter that decides at the header whether the body is compressed.
type zipped struct {
	http.ResponseWriter
	z       *gzip.Writer
	decided bool
}

// WriteHeader implements http.ResponseWriter.
func (z *zipped) WriteHeader(status int) {
	if !z.decided {
		z.decided = true
		t := z.Header().Get("Content-Type")
		if status != http.StatusNoContent && status != http.StatusNotModified && t != EventStream &&
			(strings.HasPrefix(t, "text/") || strings.HasPrefix(t, "image/svg")) {
			z.Header().Set("Content-Encoding", "gzip")
			z.Header().Del("Content-Length")
			z.z = gzips.Get().(*gzip.Writer)
			z.z.Reset(z.ResponseWriter)
		}
	}
	z.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (z *zipped) Write(b []byte) (int, error) {
	if !z.decided {
		z.WriteHeader(http.StatusOK)
	}
	if z.z != nil {
		return z.z.Write(b)
	}
	return z.ResponseWriter.Write(b)
}

// EventStream is the media type of server-sent events. They are not compressed: gzip would delay them.
const EventStream = "text/event-stream"

// Unwrap lets http.ResponseController reach the connection.
func (z *zipped) Unwrap() http.ResponseWriter { return z.ResponseWriter }

func (z *zipped) close() {
	if z.z == nil {
		return
	}
	_ = z.z.Close() // fails only if the client has disconnected
	gzips.Put(z.z)
}
