package lms

import (
	"fmt"
	"net/http"
	"time"
)

// streamPause is how long a reader of a stream may take for what is sent to it, and how long nothing may be sent.
const streamPause = 30 * time.Second

// stream sends server-sent events.
type stream struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

// newStream begins one. The people's port ends what takes long, in both directions; a stream lasts, as long as its reader reads.
func newStream(w http.ResponseWriter) *stream {
	s := &stream{w: w, out: http.NewResponseController(w)}
	_ = s.out.SetReadDeadline(time.Time{}) // nothing more is read; not everything below is a connection
	w.Header().Set("Content-Type", eventStream)
	return s
}

// send sends text at once, and gives the next one its time. An error means that the stream is over: the reader has gone, does not
// read, or cannot be given more time.
func (s *stream) send(text string) error {
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
