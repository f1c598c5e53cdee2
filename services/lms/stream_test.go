package lms

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"example.org/security-training/services/lms/site"
)

// timed is a ResponseWriter whose deadline can be renewed only most times.
type timed struct {
	http.ResponseWriter
	mu      *sync.Mutex
	renewed *int
	most    int
}

func (w timed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w timed) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	*w.renewed++
	n := *w.renewed
	w.mu.Unlock()
	if n > w.most {
		return errors.New("no more time")
	}
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
}

func TestAStreamRenewsItsDeadlineAtEachEventAndEndsWhenItCannot(t *testing.T) {
	s := withConductor(t)
	hold := make(chan struct{})
	s.gateway.set(func() { s.gateway.hold = hold })
	defer close(hold)
	mira, instructor := s.as("mira.keller"), s.as(site.RoleInstructor)
	lesson := mira.start("phishing")
	for _, c := range []struct {
		who  *browser
		path string
	}{{mira, lesson + "/progress"}, {instructor, "/console/events"}} {
		const most = 3
		var mu sync.Mutex
		renewed := 0
		web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.Pages().ServeHTTP(timed{w, &mu, &renewed, most}, r)
		}))
		web.Config.WriteTimeout = time.Nanosecond
		web.Start()
		defer web.Close()
		own, _ := url.Parse(s.web.URL)
		there, _ := url.Parse(web.URL)
		c.who.Jar.SetCookies(there, c.who.Jar.Cookies(own))
		resp, err := c.who.Get(web.URL + c.path)
		if err != nil {
			t.Errorf("%s: the deadline of the answer ends it: %v", c.path, err)
			continue
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, err = io.ReadAll(resp.Body)
		}()
		for ended := false; !ended; { // something happens on the console until the stream is over
			s.console.Wrote(nil)
			select {
			case <-over:
				ended = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		resp.Body.Close()
		mu.Lock()
		if renewed != most+1 {
			t.Errorf("%s: the deadline was renewed %d times, want at each event until that fails, %d", c.path, renewed, most+1)
		}
		mu.Unlock()
	}
}
