package site

import (
	"fmt"
	"net/http"
	"time"
)

// streamPause is how long a reader of a stream may take for what is sent to it, and how long nothing may be sent.
const streamPause = 30 * time.Second

// Stream sends server-sent events.
type Stream struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

// NewStream begins one. The people's port ends what takes long, in both directions; a stream lasts, as long as its
// reader reads.
func NewStream(w http.ResponseWriter) *Stream {
	s := &Stream{w: w, out: http.NewResponseController(w)}
	_ = s.out.SetReadDeadline(time.Time{}) // nothing more is read; not everything below is a connection
	w.Header().Set("Content-Type", EventStream)
	return s
}

// Send sends text at once, and gives the next one its time. An error means that the stream is over: the reader has
// gone, does not read, or cannot be given more time.
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
