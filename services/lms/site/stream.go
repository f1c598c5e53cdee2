package site

import (
	"fmt"
	"net/http"
	"time"
)

// streamPause is the write deadline of an event, and so the longest pause between two events.
const streamPause = 30 * time.Second

// Stream sends server-sent events.
type Stream struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

// NewStream begins a stream. The server's read and write deadlines would end it; instead it lasts for as long as the
// client reads.
func NewStream(w http.ResponseWriter) *Stream {
	s := &Stream{w: w, out: http.NewResponseController(w)}
	_ = s.out.SetReadDeadline(time.Time{}) // not every ResponseWriter supports it
	w.Header().Set("Content-Type", EventStream)
	return s
}

// Send sends text at once and renews the write deadline. An error means that the stream has ended: the client has
// disconnected or does not read, or the deadline cannot be renewed.
func (s *Stream) Send(text string) error {
	if err := s.out.SetWriteDeadline(time.Now().Add(streamPause)); err != nil {
		return fmt.Errorf("renew deadline of stream: %w", err)
	}
	if _, err := fmt.Fprint(s.w, text); err != nil {
		return fmt.Errorf("send event: %w", err)
	}
	if err := s.out.Flush(); err != nil {
		return fmt.Errorf("send event: %w", err)
	}
	return nil
}
