package mesh_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/meshtest"
)

// forgery is one certificate that must be refused, on whichever side it is presented.
type forgery struct {
	rule  string
	want  mesh.Reason // empty: the certificate is unusual and good
	forge func(f *forger) *x509svid.SVID
}

// forger makes certificates for one ID, good but for what a rule forbids.
type forger struct {
	t   testing.TB
	net *meshtest.Net
	id  spiffeid.ID
}

func (f *forger) template() *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		f.t.Fatal(err)
	}
	name := strings.TrimPrefix(f.id.Path(), "/")
	return &x509.Certificate{
		SerialNumber:          serial.SetBit(serial, 120, 1),
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		URIs:                  []*url.URL{f.id.URL()},
		NotBefore:             f.net.Now().Add(-10 * time.Second),
		NotAfter:              f.net.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
}

// sign does not parse what it signs, so that it can make what Go's parser would refuse.
func (f *forger) sign(ca *authority.CA, template *x509.Certificate, above ...*authority.CA) *x509svid.SVID {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		f.t.Fatal(err)
	}
	svid := &x509svid.SVID{ID: f.id, Certificates: []*x509.Certificate{{Raw: der, SerialNumber: template.SerialNumber}},
		PrivateKey: key}
	for _, c := range above {
		svid.Certificates = append(svid.Certificates, c.Cert)
	}
	return svid
}

func (f *forger) intermediate(above *authority.CA, edit func(*x509.Certificate)) *authority.CA {
	ca, err := above.Intermediate(f.net.Now(), time.Hour, edit)
	if err != nil {
		f.t.Fatal(err)
	}
	return ca
}

func (f *forger) otherCA(domain spiffeid.TrustDomain) *authority.CA {
	ca, err := authority.New(domain, f.net.Now(), time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	return ca
}

// edited is a rule that one field of the leaf breaks.
func edited(edit func(*x509.Certificate)) func(*forger) *x509svid.SVID {
	return func(f *forger) *x509svid.SVID {
		template := f.template()
		edit(template)
		return f.sign(f.net.CA, template)
	}
}

// uris is a rule that the URIs of the leaf break; %D stands for the domain and %N for the workload's name.
func uris(patterns ...string) func(*forger) *x509svid.SVID {
	return func(f *forger) *x509svid.SVID {
		template := f.template()
		fill := strings.NewReplacer("%D", f.id.TrustDomain().Name(), "%N", f.id.Path()[1:])
		var names []string
		for _, p := range patterns {
			names = append(names, fill.Replace(p))
		}
		template.ExtraExtensions = append(template.ExtraExtensions, alternativeNames(f.t, false, names...))
		return f.sign(f.net.CA, template)
	}
}

// below is a rule that an intermediate breaks.
func below(edit func(*x509.Certificate)) func(*forger) *x509svid.SVID {
	return func(f *forger) *x509svid.SVID {
		ca := f.intermediate(f.net.CA, edit)
		return f.sign(ca, f.template(), ca)
	}
}

// alternativeNames writes URIs as they stand, where x509.Certificate would write them as url.URL sees them.
func alternativeNames(t testing.TB, critical bool, names ...string) pkix.Extension {
	t.Helper()
	var raw []asn1.RawValue
	for _, n := range names {
		raw = append(raw, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(n)})
	}
	value, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: value}
}

var unknownExtension = pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true,
	Value: []byte{5, 0}}

// long is an ID of exactly n bytes.
func long(f *forger, n int) string {
	s := "spiffe://" + f.id.TrustDomain().Name() + "/"
	return s + strings.Repeat("a", n-len(s))
}

// forgeries are the rules of X509-SVID.md and SPIFFE-ID.md, and what Go's own parser adds.
var forgeries = []forgery{
	// The number of URIs.
	{"two URI SANs", mesh.ManyURIs, uris("spiffe://%D/%N", "spiffe://%D/other")},
	{"the same URI SAN twice", mesh.ManyURIs, uris("spiffe://%D/%N", "spiffe://%D/%N")},
	{"a web address in addition to the ID", mesh.ManyURIs, uris("spiffe://%D/%N", "https://example.com/")},
	{"no URI SAN but a DNS name", mesh.NoURI, edited(func(c *x509.Certificate) { c.URIs = nil })},
	{"no SAN at all", mesh.NoURI, edited(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, nil })},

	// The ID.
	{"scheme https", mesh.Scheme, uris("https://%D/%N")},
	{"scheme in upper case", mesh.Scheme, uris("SPIFFE://%D/%N")},
	{"no scheme", mesh.Scheme, uris("//%D/%N")},
	{"one slash", mesh.Scheme, uris("spiffe:/%D/%N")},
	{"ID without path", mesh.NoPath, uris("spiffe://%D")},
	{"path of one slash", mesh.TrailingSlash, uris("spiffe://%D/")},
	{"query", mesh.Query, uris("spiffe://%D/%N?as=admin")},
	{"empty query", mesh.Query, uris("spiffe://%D/%N?")},
	{"fragment", mesh.Fragment, uris("spiffe://%D/%N#x")},
	{"empty fragment", mesh.Fragment, uris("spiffe://%D/%N#")},
	{"user", mesh.UserInfo, uris("spiffe://root@%D/%N")},
	{"user and password", mesh.UserInfo, uris("spiffe://root:pw@%D/%N")},
	{"port", mesh.Port, uris("spiffe://%D:8443/%N")},
	{"empty port", mesh.Port, uris("spiffe://%D:/%N")},
	{"empty trust domain", mesh.EmptyDomain, uris("spiffe:///%N")},
	{"nothing behind the scheme", mesh.EmptyDomain, uris("spiffe://")},
	{"upper case in the trust domain", mesh.DomainCharacter, func(f *forger) *x509svid.SVID {
		return uris("spiffe://" + strings.ToUpper(f.id.TrustDomain().Name()) + "/%N")(f)
	}},
	{"illegal character in the trust domain", mesh.DomainCharacter, uris("spiffe://%D~x/%N")},
	{"illegal character inside the trust domain", mesh.DomainCharacter, uris("spiffe://a!%D/%N")},
	{"percent-encoded letter", mesh.PercentEncoding, uris("spiffe://%D/%6c%N")},
	{"percent-encoded slash", mesh.PercentEncoding, uris("spiffe://%D/x%2F..%2F%N")},
	{"empty first segment", mesh.PathSegment, uris("spiffe://%D//%N")},
	{"empty segment", mesh.PathSegment, uris("spiffe://%D/x//%N")},
	{"dot segment", mesh.PathSegment, uris("spiffe://%D/./%N")},
	{"two dots", mesh.PathSegment, uris("spiffe://%D/x/../%N")},
	{"two dots at the end", mesh.PathSegment, uris("spiffe://%D/%N/..")},
	{"trailing slash", mesh.TrailingSlash, uris("spiffe://%D/%N/")},
	{"two trailing slashes", mesh.TrailingSlash, uris("spiffe://%D/%N//")},
	{"dollar in a segment", mesh.SegmentCharacter, uris("spiffe://%D/%N$")},
	{"tilde in a segment", mesh.SegmentCharacter, uris("spiffe://%D/~%N")},
	{"space in a segment", mesh.SegmentCharacter, uris("spiffe://%D/%N x")},
	{"2,049 bytes", mesh.TooLong, func(f *forger) *x509svid.SVID { return uris(long(f, 2049))(f) }},

	// Longer, deeper and other names are IDs like any other: of another workload. None is taken for its last segment.
	{"2,048 bytes", mesh.Unlisted, func(f *forger) *x509svid.SVID { return uris(long(f, 2048))(f) }},
	{"a path that ends in the name", mesh.Unlisted, uris("spiffe://%D/x/%N")},
	{"a path that begins with the name", mesh.Unlisted, uris("spiffe://%D/%N/x")},
	{"the name in upper case", mesh.Unlisted, func(f *forger) *x509svid.SVID {
		return uris("spiffe://%D/" + strings.ToUpper(f.id.Path()[1:]))(f)
	}},
	{"a name that topology does not list", mesh.Unlisted, uris("spiffe://%D/nobody")},

	// What Go's parser refuses before any rule can: one code for all, the text says which.
	{"characters beyond ASCII in the ID", mesh.Unparseable, uris("spiffe://%D/\u043clms")},
	{"a control character in the ID", mesh.Unparseable, uris("spiffe://%D/%N\x00")},
	{"percent encoding in the trust domain", mesh.Unparseable, uris("spiffe://%6c%D/%N")},
	{"a trust domain that ends in a dot", mesh.Unparseable, uris("spiffe://%D./%N")},
	{"a port that is no number", mesh.Unparseable, uris("spiffe://%D:http/%N")},
	{"a SAN that is not ASN.1", mesh.Unparseable, edited(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte("spiffe")}}
	})},
	{"a certificate cut in half", mesh.Unparseable, func(f *forger) *x509svid.SVID {
		svid := f.sign(f.net.CA, f.template())
		svid.Certificates[0].Raw = svid.Certificates[0].Raw[:200]
		return svid
	}},

	// The leaf.
	{"leaf that is a CA", mesh.LeafIsCA, edited(func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign
	})},
	{"leaf with keyCertSign", mesh.LeafSignsCerts,
		edited(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })},
	{"leaf with cRLSign", mesh.LeafSignsCRLs, edited(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign })},
	{"no digitalSignature", mesh.NoDigitalSignature,
		edited(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })},
	{"no key usage", mesh.NoKeyUsage, edited(func(c *x509.Certificate) { c.KeyUsage = 0 })},
	{"key usage not critical", mesh.KeyUsageNotCritical, edited(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 7, 0x80}}}
	})},
	{"extended key usage of a client alone", mesh.ExtendedKeyUsage, edited(func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})},
	{"extended key usage of a server alone", mesh.ExtendedKeyUsage, edited(func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})},
	{"extended key usage for code", mesh.ExtendedKeyUsage, edited(func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	})},
	{"unknown extended key usage", mesh.ExtendedKeyUsage, edited(func(c *x509.Certificate) {
		c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 2}}
	})},
	{"extended key usage absent", "", edited(func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
	{"URI SAN not critical and no subject", mesh.URINotCritical, func(f *forger) *x509svid.SVID {
		template := f.template()
		template.Subject = pkix.Name{}
		template.ExtraExtensions = append(template.ExtraExtensions, alternativeNames(f.t, false, f.id.String()))
		return f.sign(f.net.CA, template)
	}},
	{"URI SAN critical and no subject", "", func(f *forger) *x509svid.SVID {
		template := f.template()
		template.Subject = pkix.Name{}
		template.ExtraExtensions = append(template.ExtraExtensions, alternativeNames(f.t, true, f.id.String()))
		return f.sign(f.net.CA, template)
	}},
	{"unknown critical extension", mesh.CriticalExtension, edited(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{unknownExtension}
	})},

	// Time.
	{"expired", mesh.Expired, edited(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*time.Hour), c.NotBefore.Add(-time.Minute)
	})},
	{"expired by two seconds", mesh.Expired,
		edited(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(8 * time.Second) })},
	{"not yet valid", mesh.NotYetValid, edited(func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(-time.Minute) })},
	{"issued by a clock that is 8 s ahead", "",
		edited(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(8 * time.Second) })},
	{"issued by a clock that is 60 s ahead", mesh.NotYetValid,
		edited(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Minute) })},
	{"expired intermediate", mesh.Expired, below(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*time.Hour), c.NotBefore.Add(-time.Hour)
	})},

	// The chain.
	{"a good intermediate", "", below(nil)},
	{"two good intermediates", "", func(f *forger) *x509svid.SVID {
		upper := f.intermediate(f.net.CA, nil)
		lower := f.intermediate(upper, nil)
		return f.sign(lower, f.template(), lower, upper)
	}},
	{"intermediate that is no CA", mesh.IntermediateNotCA, below(func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
	})},
	{"intermediate without basic constraints", mesh.IntermediateNotCA, below(func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid = false, false
	})},
	{"intermediate without keyCertSign", mesh.IntermediateUsage,
		below(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })},
	{"intermediate without key usage", mesh.IntermediateUsage, below(func(c *x509.Certificate) { c.KeyUsage = 0 })},
	{"intermediate with an unknown critical extension", mesh.CriticalExtension, below(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{unknownExtension}
	})},
	{"an intermediate that is not sent", mesh.UnknownIssuer, func(f *forger) *x509svid.SVID {
		return f.sign(f.intermediate(f.net.CA, nil), f.template())
	}},
	{"another workload's SVID as an intermediate", mesh.IntermediateNotCA, func(f *forger) *x509svid.SVID {
		other, err := f.net.CA.Issue(f.id, f.net.Now(), time.Hour, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		ca := &authority.CA{Domain: f.id.TrustDomain(), Cert: other.Certificates[0], Key: other.PrivateKey}
		return f.sign(ca, f.template(), ca)
	}},
	{"signing certificate with a path in its ID", mesh.SignerWithPath,
		below(func(c *x509.Certificate) { c.URIs[0].Path = "/signer" })},
	{"signing certificate used as a leaf", mesh.LeafIsCA, func(f *forger) *x509svid.SVID {
		ca := f.intermediate(f.net.CA, func(c *x509.Certificate) {
			c.URIs[0].Path = f.id.Path()
			c.KeyUsage |= x509.KeyUsageDigitalSignature
		})
		return &x509svid.SVID{ID: f.id, Certificates: []*x509.Certificate{ca.Cert}, PrivateKey: ca.Key}
	}},
	{"root used as a leaf", mesh.NoPath, func(f *forger) *x509svid.SVID {
		return &x509svid.SVID{ID: f.id, Certificates: []*x509.Certificate{f.net.CA.Cert}, PrivateKey: f.net.CA.Key}
	}},
	{"unknown issuer", mesh.UnknownIssuer, func(f *forger) *x509svid.SVID {
		return f.sign(f.otherCA(f.id.TrustDomain()),
			f.template())
	}},
	{"unknown issuer that sends its root", mesh.UnknownIssuer, func(f *forger) *x509svid.SVID {
		ca := f.otherCA(f.id.TrustDomain())
		return f.sign(ca, f.template(), ca)
	}},
	{"self-signed", mesh.SelfSigned, func(f *forger) *x509svid.SVID {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			f.t.Fatal(err)
		}
		template := f.template()
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			f.t.Fatal(err)
		}
		return &x509svid.SVID{ID: f.id, Certificates: []*x509.Certificate{{Raw: der, SerialNumber: template.SerialNumber}},
			PrivateKey: key}
	}},
	{"bad signature", mesh.BadSignature, func(f *forger) *x509svid.SVID {
		svid := f.sign(f.net.CA, f.template())
		raw := slices.Clone(svid.Certificates[0].Raw)
		raw[len(raw)-1] ^= 1
		svid.Certificates[0].Raw = raw
		return svid
	}},
	{"content changed after signing", mesh.BadSignature, func(f *forger) *x509svid.SVID {
		template := f.template()
		template.Subject.CommonName = "changed"
		svid := f.sign(f.net.CA, template)
		svid.Certificates[0].Raw = bytes.Replace(svid.Certificates[0].Raw, []byte("changed"), []byte("CHANGED"), 1)
		return svid
	}},
	{"another CA under the same name and key identifier", mesh.BadSignature, func(f *forger) *x509svid.SVID {
		ca := f.otherCA(f.id.TrustDomain())
		posing := *f.net.CA.Cert
		posing.PublicKey = ca.Key.Public()
		return f.sign(&authority.CA{Domain: ca.Domain, Cert: &posing, Key: ca.Key}, f.template())
	}},
	{"path length", mesh.PathLength, func(f *forger) *x509svid.SVID {
		upper := f.intermediate(f.net.CA, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
		lower := f.intermediate(upper, nil)
		return f.sign(lower, f.template(), lower, upper)
	}},
	{"name constraints that permit another domain", mesh.NameConstraint, below(func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
	})},
	{"name constraints that exclude this domain", mesh.NameConstraint, func(f *forger) *x509svid.SVID {
		return below(func(c *x509.Certificate) {
			c.ExcludedURIDomains, c.PermittedDNSDomainsCritical = []string{f.id.TrustDomain().Name()}, true
		})(f)
	}},

	// Domains.
	{"a workload of a federated domain", mesh.Unlisted, func(f *forger) *x509svid.SVID {
		id := spiffeid.RequireFromPath(f.net.Foreign.Domain, f.id.Path())
		return (&forger{f.t, f.net, id}).sign(f.net.Foreign, (&forger{f.t, f.net, id}).template())
	}},
	{"a workload of an unknown domain", mesh.ForeignDomain, func(f *forger) *x509svid.SVID {
		stranger := &forger{f.t, f.net, spiffeid.RequireFromString("spiffe://stranger.example.com" + f.id.Path())}
		return stranger.sign(stranger.otherCA(stranger.id.TrustDomain()), stranger.template())
	}},
	{"an unknown domain's ID under this domain's CA", mesh.ForeignDomain, func(f *forger) *x509svid.SVID {
		stranger := &forger{f.t, f.net, spiffeid.RequireFromString("spiffe://stranger.example.com" + f.id.Path())}
		return stranger.sign(f.net.CA, stranger.template())
	}},
	{"this domain's ID under a federated domain's CA", mesh.OtherDomainsCA, func(f *forger) *x509svid.SVID {
		return f.sign(f.net.Foreign, f.template())
	}},
	{"a federated domain's ID under this domain's CA", mesh.OtherDomainsCA, func(f *forger) *x509svid.SVID {
		partner := &forger{f.t, f.net, spiffeid.RequireFromPath(f.net.Foreign.Domain, f.id.Path())}
		return partner.sign(f.net.CA, partner.template())
	}},

	// The key.
	{"a stolen certificate without its key", mesh.ProofOfPossession, func(f *forger) *x509svid.SVID {
		svid, thief := f.sign(f.net.CA, f.template()), f.sign(f.net.CA, f.template())
		svid.PrivateKey = thief.PrivateKey
		return svid
	}},
}
