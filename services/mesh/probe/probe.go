// Package probe calls a workload as any caller, honest or not, and reports the outcome. The matrix, the scenarios and
// the tests of refusals use it. It does not verify the server.
//
// A probe changes nothing: it has no body and a media type that no handler accepts, so that 415 proves Allowed. If the
// callee made no decision, the result is Undecided, which is no refusal.
package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/services/topology"
)

// MediaType is the media type of a probe's requests.
const MediaType = "application/x-probe"

// Caller is the calling side of a probe.
type Caller struct {
	SVID    *x509svid.SVID // nil: no certificate
	Manner  Manner
	Tickets *Tickets // set to try to resume a session
	Bearer  string   // a token in the header Authorization, as if it could stand for a certificate
}

// Manner is how a caller uses a connection.
type Manner int

// The manners. TLS13 is the honest one.
const (
	TLS13 Manner = iota
	TLS12
	Plaintext
	HalfOpen // connects and sends nothing
)

// Tickets keeps sessions between connections, to resume them.
type Tickets struct{ cache tls.ClientSessionCache }

// NewTickets returns an empty store of sessions.
func NewTickets() *Tickets { return &Tickets{cache: tls.NewLRUClientSessionCache(8)} }

// Undecided is the outcome of a call without a decision: the callee could not be reached, did not speak TLS, did not
// answer in time, or cannot record its decisions. It is not one of topology's outcomes, so that a callee that is down
// is not taken for one that refuses.
const Undecided topology.Outcome = "Undecided"

// ErrNobody is in the error of Open, and in that of a Result, when there was no decision.
var ErrNobody = errors.New("no decision")

// Result is what the calling side saw.
type Result struct {
	Outcome topology.Outcome // one of topology's, or Undecided
	Reason  string           // the header Mesh-Reason, when there was an answer
	Status  int              // of the answer, 0 if there was none
	Err     error            // of the connection, if it ended
	Resumed bool             // the session was resumed, which must never be
}

// Conn is one kept connection.
type Conn struct {
	net.Conn
	reader *bufio.Reader
	bearer string
	state  tls.ConnectionState
}

// How long a peer may take. After the handshake it is known to be alive, and an answer may need work.
const (
	patience       = 5 * time.Second
	answerPatience = 20 * time.Second
)

// Open connects as c. A refusal often shows only at the first answer: in TLS 1.3, a client finishes its handshake
// before the server checks its certificate. An error that is ErrNobody is no refusal.
func Open(ctx context.Context, addr string, c Caller) (*Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNobody, err)
	}
	return Over(ctx, raw, c)
}

// Over is Open on an existing connection, which it closes if it fails.
func Over(ctx context.Context, raw net.Conn, c Caller) (*Conn, error) {
	if c.Manner == Plaintext || c.Manner == HalfOpen {
		return &Conn{Conn: raw, reader: bufio.NewReader(raw)}, nil
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		MaxVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the calling side is under test
		VerifyConnection:   func(tls.ConnectionState) error { return nil },
		NextProtos:         []string{"http/1.1"},
		ServerName:         "probe", // sessions are kept by this name
	}
	if c.Manner == TLS12 {
		config.MaxVersion = tls.VersionTLS12
	}
	if c.Tickets != nil {
		config.ClientSessionCache = c.Tickets.cache
	}
	if c.SVID != nil {
		cert := tls.Certificate{PrivateKey: c.SVID.PrivateKey}
		for _, x := range c.SVID.Certificates {
			cert.Certificate = append(cert.Certificate, x.Raw)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	conn := tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		var alert *net.OpError // a refusal is an alert
		if !errors.As(err, &alert) || alert.Op != "remote error" {
			err = fmt.Errorf("%w: %w", ErrNobody, err)
		}
		return nil, err
	}
	return &Conn{Conn: conn, reader: bufio.NewReader(conn), bearer: c.Bearer, state: conn.ConnectionState()}, nil
}

// silent says whether err means that no answer came in time.
func silent(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.Canceled)
}

// end is the result of a connection that ended with err, without an answer.
func (r Result) end(err error) Result {
	r.Outcome, r.Err = topology.Refused, err
	if silent(err) {
		r.Outcome, r.Err = Undecided, fmt.Errorf("%w: %w", ErrNobody, err)
	}
	return r
}

// Try sends one request for route and reads the answer; the connection stays open if the server lets it.
func (c *Conn) Try(ctx context.Context, route topology.Route) Result {
	return c.Send(ctx, route.Method(), route.Example(), MediaType)
}

// Send is Try for any method, path and media type.
func (c *Conn) Send(ctx context.Context, method, path, mediaType string) Result {
	r := Result{Outcome: topology.Refused, Resumed: c.state.DidResume}
	wait := patience
	if c.state.HandshakeComplete {
		wait = answerPatience
	}
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return r.end(err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://probe"+path, nil)
	if err != nil {
		r.Outcome, r.Err = Undecided, fmt.Errorf("%w: %w", ErrNobody, err)
		return r
	}
	req.Host = c.RemoteAddr().String() // the ports for people answer only for their own host
	if method != http.MethodGet {
		req.Header.Set("Content-Type", mediaType)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	if err := req.Write(c); err != nil {
		// The refusal's alert may already be waiting behind the broken pipe.
		if _, readErr := c.reader.Peek(1); readErr != nil {
			err = readErr
		}
		return r.end(err)
	}
	resp, err := http.ReadResponse(c.reader, req)
	if err != nil {
		return r.end(err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	r.Err = errors.Join(err, resp.Body.Close())
	r.Status, r.Reason = resp.StatusCode, resp.Header.Get("Mesh-Reason")
	switch {
	case r.Reason == "" && resp.TLS == nil && c.state.Version == 0:
		// An answer in plaintext: there is no session.
	case r.Reason == "":
		r.Outcome = topology.Allowed
	case resp.StatusCode == http.StatusForbidden:
		r.Outcome = topology.Forbidden
	case resp.StatusCode == http.StatusServiceUnavailable:
		r.Outcome = Undecided
	}
	return r
}

// Closed says whether the server has ended the connection, waiting up to patience for it.
func (c *Conn) Closed(patience time.Duration) bool {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return true
	}
	_, err := c.reader.Peek(1)
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

// Once opens a connection, tries route and closes.
func Once(ctx context.Context, addr string, c Caller, route topology.Route) Result {
	conn, err := Open(ctx, addr, c)
	if errors.Is(err, ErrNobody) {
		return Result{Outcome: Undecided, Err: err}
	}
	if err != nil {
		return Result{Outcome: topology.Refused, Err: err}
	}
	defer conn.Close()
	return conn.Try(ctx, route)
}

// Serve answers every connection to l with svid and without any check, as an impostor would, until ctx ends. It is for
// tests of the calling side.
func Serve(ctx context.Context, l net.Listener, svid *x509svid.SVID) error {
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, x := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, x.Raw)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequestClientCert}
	s := &http.Server{
		ReadHeaderTimeout: patience,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "impostor") }),
		// The caller reports that it refused the impostor.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(tls.NewListener(l, config)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
