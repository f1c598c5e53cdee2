// Package authority signs X.509-SVIDs for one trust domain. The lab's issuer and the mesh's tests use it; no service
// does.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// backdate is how far NotBefore lies in the past, as in SPIRE, to tolerate clock differences.
const backdate = 10 * time.Second

// CA is a certificate authority: the root of a trust domain, or an intermediate below one.
type CA struct {
	Domain spiffeid.TrustDomain
	Cert   *x509.Certificate
	Key    crypto.Signer
	above  []*x509.Certificate // the intermediates after Cert in a leaf's chain, if Cert is not a root
	root   bool
}

// New creates a root that is valid for ttl from now.
func New(domain spiffeid.TrustDomain, now time.Time, ttl time.Duration) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	template := caTemplate(domain, serial, now, ttl)
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	return &CA{Domain: domain, Cert: cert, Key: key, root: true}, nil
}

func caTemplate(domain spiffeid.TrustDomain, serial *big.Int, now time.Time, ttl time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{Organization: []string{domain.Name()}, CommonName: fmt.Sprintf("CA %x",
			serial.Bytes()[:4])},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: domain.Name()}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// Intermediate creates a CA below ca. edit, which may be nil, changes the certificate before it is signed.
func (ca *CA) Intermediate(now time.Time, ttl time.Duration, edit func(*x509.Certificate)) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make intermediate: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, fmt.Errorf("make intermediate: %w", err)
	}
	template := caTemplate(ca.Domain, serial, now, ttl)
	if edit != nil {
		edit(template)
	}
	cert, err := sign(template, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		return nil, fmt.Errorf("make intermediate: %w", err)
	}
	out := &CA{Domain: ca.Domain, Cert: cert, Key: key}
	if !ca.root {
		out.above = append([]*x509.Certificate{ca.Cert}, ca.above...)
	}
	return out, nil
}

// Issue signs an SVID for id that is valid for ttl from now. The common name and first DNS name are the ID's path
// without its slash, because PostgreSQL maps certificates to roles by common name. edit, which may be nil, changes the
// certificate before it is signed; only tests pass one.
func (ca *CA) Issue(
	id spiffeid.ID, now time.Time, ttl time.Duration, edit func(*x509.Certificate),
) (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", id, err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", id, err)
	}
	name := ""
	if id.Path() != "" {
		name = id.Path()[1:]
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{id.TrustDomain().Name()}, CommonName: name},
		DNSNames:              []string{name},
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(ca.Cert.NotAfter) {
		template.NotAfter = ca.Cert.NotAfter
	}
	if edit != nil {
		edit(template)
	}
	cert, err := sign(template, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", id, err)
	}
	svid := &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{cert}, PrivateKey: key}
	if !ca.root {
		svid.Certificates = append(append(svid.Certificates, ca.Cert), ca.above...)
	}
	return svid, nil
}

// PEM is the certificate and the private key of a root, for a file that only its owner may read.
func (ca *CA) PEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(ca.Key)
	if err != nil {
		return nil, fmt.Errorf("encode CA: %w", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), nil
}

// FromPEM reads the output of PEM.
func FromPEM(domain spiffeid.TrustDomain, text []byte) (*CA, error) {
	certBlock, rest := pem.Decode(text)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("read CA: want a certificate and a key in PEM")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read CA: a %T cannot sign", key)
	}
	return &CA{Domain: domain, Cert: cert, Key: signer, root: true}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func serialNumber() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40 // positive, and of full length
	return new(big.Int).SetBytes(b), nil
}
