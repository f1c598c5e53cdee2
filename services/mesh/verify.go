package mesh

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Reason says why a peer or a request was refused. The codes are stable: they are part of audit entries and of the
// header Mesh-Reason.
type Reason string

// Reasons about the connection.
const (
	NoCertificate     Reason = "no_certificate"
	Plaintext         Reason = "plaintext"
	TLSVersion        Reason = "tls_version"
	Unparseable       Reason = "unparseable_certificate" // Go's parser refused it before the rules of SPIFFE
	ProofOfPossession Reason = "no_proof_of_possession"  // the peer does not hold the certificate's key
	HandshakeTimeout  Reason = "handshake_timeout"
	HungUp            Reason = "hung_up"
	PeerRefused       Reason = "refused_by_peer"
	HandshakeFailed   Reason = "handshake_failed"
	Resumed           Reason = "resumed_session"
	NoIdentity        Reason = "no_identity" // this side has none
)

// Reasons about the SPIFFE ID (SPIFFE-ID.md, sections 2.1 to 2.3).
const (
	NoURI            Reason = "no_uri_san"
	ManyURIs         Reason = "several_uri_sans"
	Scheme           Reason = "scheme_not_spiffe"
	NoPath           Reason = "id_without_path"
	Query            Reason = "id_with_query"
	Fragment         Reason = "id_with_fragment"
	UserInfo         Reason = "id_with_user"
	Port             Reason = "id_with_port"
	EmptyDomain      Reason = "empty_trust_domain"
	DomainCharacter  Reason = "trust_domain_character"
	PercentEncoding  Reason = "percent_encoding"
	PathSegment      Reason = "path_segment" // empty, "." or ".."
	TrailingSlash    Reason = "trailing_slash"
	SegmentCharacter Reason = "path_character"
	TooLong          Reason = "id_too_long"
)

// Reasons about the certificates (X509-SVID.md, sections 2 to 5).
const (
	LeafIsCA            Reason = "leaf_is_ca"
	LeafSignsCerts      Reason = "leaf_key_cert_sign"
	LeafSignsCRLs       Reason = "leaf_crl_sign"
	NoDigitalSignature  Reason = "no_digital_signature"
	NoKeyUsage          Reason = "no_key_usage"
	KeyUsageNotCritical Reason = "key_usage_not_critical"
	ExtendedKeyUsage    Reason = "extended_key_usage" // present, but not for both client and server
	IntermediateNotCA   Reason = "intermediate_not_ca"
	IntermediateUsage   Reason = "intermediate_key_usage"
	SignerWithPath      Reason = "signer_id_with_path"
	URINotCritical      Reason = "uri_san_not_critical"
	Expired             Reason = "expired"
	NotYetValid         Reason = "not_yet_valid"
	UnknownIssuer       Reason = "unknown_issuer"
	BadSignature        Reason = "bad_signature"
	SelfSigned          Reason = "self_signed"
	PathLength          Reason = "path_length"
	CriticalExtension   Reason = "unknown_critical_extension"
	NameConstraint      Reason = "name_constraints"
	ForeignDomain       Reason = "foreign_trust_domain" // no bundle for the ID's domain
	OtherDomainsCA      Reason = "other_domains_ca"     // signed by a CA of another domain
)

// Reasons of policy.
const (
	Unlisted       Reason = "not_listed"           // a valid ID of the domain that topology does not know
	NotAdmitted    Reason = "not_admitted"         // listed, but on no route of this workload
	UnexpectedPeer Reason = "unexpected_peer"      // the server is not the workload that was called
	NotForCaller   Reason = "route_not_for_caller" // admitted, but not on this route
)

// Beyond is the reason of an entry that counts refusals of one address: there were too many different ones to write
// each of them.
const Beyond Reason = "too_many_refusals"

// Flooded is the reason for closing a connection before its handshake: too many handshakes are in progress.
const Flooded Reason = "too_many_handshakes"

// Unrecorded is the reason for deciding nothing: the audit cannot be written. It is the only reason in the header
// Mesh-Reason that is no refusal; its status is 503.
const Unrecorded Reason = "audit_unavailable"

// Refusal is the error of a refused peer.
type Refusal struct {
	Reason Reason
	ID     string // empty if it could not be read
	Serial string // hex; empty if it could not be read
	Detail string
}

func (r *Refusal) Error() string {
	s := "refused: " + string(r.Reason)
	if r.ID != "" {
		s += " (" + r.ID + ")"
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

// Peer is the verified other side of a connection.
type Peer struct {
	ID       spiffeid.ID
	Serial   string // hex
	NotAfter time.Time
	chain    []*x509.Certificate
}

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
)

// verify checks a peer's chain, leaf first, against all rules, with the bundle of the leaf's own trust domain. The
// error is always a *Refusal.
func verify(chain []*x509.Certificate, bundles *x509bundle.Set, now time.Time) (*Peer, error) {
	if len(chain) == 0 {
		return nil, &Refusal{Reason: NoCertificate}
	}
	leaf := chain[0]
	serial := fmt.Sprintf("%x", leaf.SerialNumber)
	uri := ""
	refuse := func(r Reason, format string, args ...any) (*Peer, error) {
		return nil, &Refusal{Reason: r, ID: uri, Serial: serial, Detail: fmt.Sprintf(format, args...)}
	}

	uris, critical, err := uriNames(leaf)
	if err != nil {
		return refuse(Unparseable, "subject alternative name: %v", err)
	}
	switch len(uris) {
	case 0:
		return refuse(NoURI, "")
	case 1:
		uri = uris[0]
	default:
		return refuse(ManyURIs, "%d", len(uris))
	}
	if r := checkID(uri); r != "" {
		return refuse(r, "")
	}
	id, err := spiffeid.FromString(uri)
	if err != nil {
		return refuse(Unparseable, "SPIFFE ID: %v", err) // checkID is at least as strict
	}

	if r := checkLeaf(leaf); r != "" {
		return refuse(r, "")
	}
	if len(leaf.RawSubject) <= 2 && !critical {
		return refuse(URINotCritical, "")
	}
	if now.After(leaf.NotAfter) {
		return refuse(Expired, "at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		return refuse(NotYetValid, "until %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	bundle, ok := bundles.Get(id.TrustDomain())
	if !ok {
		return refuse(ForeignDomain, "")
	}
	for _, c := range chain[1:] {
		if !c.BasicConstraintsValid || !c.IsCA {
			return refuse(IntermediateNotCA, "")
		}
		if c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return refuse(IntermediateUsage, "")
		}
	}
	chains, err := chainTo(bundle, chain, now)
	if err != nil {
		r := classifyChain(err, chain, bundle)
		if r == UnknownIssuer && signedByOther(chain, bundles, id.TrustDomain(), now) {
			r = OtherDomainsCA
		}
		return refuse(r, "%v", err)
	}
	for _, signer := range chains[0][1:] {
		names, _, err := uriNames(signer)
		if err != nil {
			return refuse(Unparseable, "signer's subject alternative name: %v", err)
		}
		for _, n := range names {
			rest, spiffe := strings.CutPrefix(n, "spiffe://")
			if spiffe && strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
				return refuse(SignerWithPath, "")
			}
		}
	}
	notAfter := leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	return &Peer{ID: id, Serial: serial, NotAfter: notAfter, chain: chain}, nil
}

func chainTo(bundle *x509bundle.Bundle, chain []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range bundle.X509Authorities() {
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	return chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
}

func signedByOther(chain []*x509.Certificate, bundles *x509bundle.Set, own spiffeid.TrustDomain, now time.Time) bool {
	for _, b := range bundles.Bundles() {
		if b.TrustDomain() == own {
			continue
		}
		if _, err := chainTo(b, chain, now); err == nil {
			return true
		}
	}
	return false
}

// checkID applies the rules for a SPIFFE ID to the raw text of the certificate, because a URL parser corrects some of
// what must be refused.
func checkID(uri string) Reason {
	if len(uri) > 2048 {
		return TooLong
	}
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	if !ok {
		return Scheme
	}
	if strings.Contains(rest, "%") {
		return PercentEncoding
	}
	if strings.Contains(rest, "#") {
		return Fragment
	}
	if strings.Contains(rest, "?") {
		return Query
	}
	domain, path, hasPath := strings.Cut(rest, "/")
	switch {
	case strings.Contains(domain, "@"):
		return UserInfo
	case strings.Contains(domain, ":"):
		return Port
	case domain == "":
		return EmptyDomain
	case strings.ContainsFunc(domain, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-_", r)
	}):
		return DomainCharacter
	case !hasPath:
		return NoPath
	case path == "" || strings.HasSuffix(path, "/"):
		return TrailingSlash
	}
	for _, segment := range strings.Split(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return PathSegment
		}
		if strings.ContainsFunc(segment, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r)
		}) {
			return SegmentCharacter
		}
	}
	return ""
}

func checkLeaf(leaf *x509.Certificate) Reason {
	if leaf.IsCA {
		return LeafIsCA
	}
	found, critical := false, false
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidKeyUsage) {
			found, critical = true, e.Critical
		}
	}
	switch {
	case !found:
		return NoKeyUsage
	case !critical:
		return KeyUsageNotCritical
	case leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return LeafSignsCerts
	case leaf.KeyUsage&x509.KeyUsageCRLSign != 0:
		return LeafSignsCRLs
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return NoDigitalSignature
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 {
		client, server := false, false
		for _, u := range leaf.ExtKeyUsage {
			client = client || u == x509.ExtKeyUsageClientAuth
			server = server || u == x509.ExtKeyUsageServerAuth
		}
		if !client || !server {
			return ExtendedKeyUsage
		}
	}
	return ""
}

// uriNames returns the URIs of the subject alternative name, unparsed, and whether the extension is critical (RFC 5280,
// 4.2.1.6).
func uriNames(c *x509.Certificate) (uris []string, critical bool, err error) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil {
			return nil, false, err
		} else if len(rest) > 0 {
			return nil, false, errors.New("trailing bytes")
		}
		for _, n := range names {
			if n.Class == asn1.ClassContextSpecific && n.Tag == 6 {
				uris = append(uris, string(n.Bytes))
			}
		}
		critical = e.Critical
	}
	return uris, critical, nil
}

// classifyChain finds the rule that a chain violates.
func classifyChain(err error, chain []*x509.Certificate, bundle *x509bundle.Bundle) Reason {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.Expired:
			return Expired
		case x509.TooManyIntermediates:
			return PathLength
		case x509.CANotAuthorizedForThisName, x509.NameConstraintsWithoutSANs, x509.UnconstrainedName,
			x509.TooManyConstraints:
			return NameConstraint
		case x509.NotAuthorizedToSign:
			return IntermediateNotCA
		}
	}
	var critical x509.UnhandledCriticalExtension
	if errors.As(err, &critical) {
		return CriticalExtension
	}
	leaf := chain[0]
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) &&
		leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
		return SelfSigned
	}
	// The certificate names a known signer, by subject and key identifier, but the signature is not by its key.
	signers := append(append([]*x509.Certificate{}, chain[1:]...), bundle.X509Authorities()...)
	for _, s := range signers {
		if bytes.Equal(leaf.RawIssuer, s.RawSubject) && len(s.SubjectKeyId) > 0 &&
			bytes.Equal(leaf.AuthorityKeyId, s.SubjectKeyId) && leaf.CheckSignatureFrom(s) != nil {
			return BadSignature
		}
	}
	return UnknownIssuer
}

// classifyHandshake finds the reason of a failed handshake, apart from the rules for certificates.
func classifyHandshake(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	var header tls.RecordHeaderError
	var alert tls.AlertError
	var timeout interface{ Timeout() bool }
	text := err.Error()
	reason := HandshakeFailed
	switch {
	case errors.As(err, &header):
		reason = Plaintext
	// ours, or the peer's alert
	case strings.Contains(text, "unsupported versions"), strings.Contains(text, "protocol version"):
		reason = TLSVersion
	case errors.As(err, &alert), strings.Contains(text, "remote error"):
		reason = PeerRefused
	case errors.As(err, &timeout) && timeout.Timeout():
		reason = HandshakeTimeout
	case strings.Contains(text, "didn't provide a certificate"):
		reason = NoCertificate
	case strings.Contains(text, "failed to parse"), strings.Contains(text, "x509: "):
		reason = Unparseable
	case strings.Contains(text, "invalid signature by the"):
		reason = ProofOfPossession
	case strings.Contains(text, "EOF"), strings.Contains(text, "connection reset"), strings.Contains(text, "closed"):
		reason = HungUp
	}
	return &Refusal{Reason: reason, Detail: text}
}
