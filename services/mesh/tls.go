package mesh

import (
	"crypto/tls"
	"time"
)

// credentials are this workload's identity and the bundles that it verifies peers with.
type credentials struct {
	Identities
	now func() time.Time
}

// config is the part of the TLS configuration that both sides share. Where a side sets InsecureSkipVerify, this only
// disables Go's check of the host name: VerifyConnection checks the SPIFFE ID, and also runs for a resumed session.
func (c credentials) config(expect func(*Peer) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// PostgreSQL before 18 has only P-256.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		SessionTicketsDisabled: true,
		Time:                   c.now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := c.verify(cs)
			if err != nil {
				return err
			}
			return expect(peer)
		},
	}
}

// verify is the verified peer of a finished handshake.
func (c credentials) verify(cs tls.ConnectionState) (*Peer, error) {
	if cs.DidResume {
		return nil, &Refusal{Reason: Resumed}
	}
	id, err := c.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	return verify(cs.PeerCertificates, id.Bundles, c.now())
}

// certificate is the certificate that this workload presents.
func (c credentials) certificate() (*tls.Certificate, error) {
	id, err := c.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	if c.now().After(id.NotAfter()) {
		return nil, &Refusal{Reason: NoIdentity, Detail: "the own identity has ended"}
	}
	return id.certificate(), nil
}

// Identity is this workload's current identity, for use outside the mesh: the database server presents it.
func (n *Node) Identity() (*Identity, error) { return n.own.Current() }
