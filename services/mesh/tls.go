package mesh

import (
	"crypto/tls"
)

// tlsConfig is the part of the configuration that both sides share. Where a side sets InsecureSkipVerify, this only
// disables Go's check of the host name: VerifyConnection checks the SPIFFE ID, and also runs for a resumed session.
func (n *Node) tlsConfig(expect func(*Peer) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// PostgreSQL before 18 has only P-256.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		SessionTicketsDisabled: true,
		Time:                   n.now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := n.verifyState(cs)
			if err != nil {
				return err
			}
			return expect(peer)
		},
	}
}

func (n *Node) verifyState(cs tls.ConnectionState) (*Peer, error) {
	if cs.DidResume {
		return nil, &Refusal{Reason: Resumed}
	}
	id, err := n.identities.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	return verify(cs.PeerCertificates, id.Bundles, n.now())
}

func (n *Node) ownCertificate() (*tls.Certificate, error) {
	id, err := n.identities.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	if n.now().After(id.NotAfter()) {
		return nil, &Refusal{Reason: NoIdentity, Detail: "the own identity has ended"}
	}
	return id.certificate(), nil
}

// Identity is this workload's current identity, for use outside the mesh: the database server presents it.
func (n *Node) Identity() (*Identity, error) { return n.identities.Current() }
