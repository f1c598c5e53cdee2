package control

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
)

// The people's CA signs the certificates for browsers: the dashboard's, and those of people. It is independent of the
// mesh's CA. Only the supervisor has its key.
const (
	peopleCALife     = 365 * 24 * time.Hour
	peopleServerLife = 90 * 24 * time.Hour
	peopleLife       = 30 * 24 * time.Hour

	// backdate is how far back the validity of certificates begins, for clients whose clocks are slow.
	backdate = time.Minute
)

type peopleCA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (f StateDir) peopleCA() string { return f.Path("people-ca.pem") }

// openPeopleCA reads the lab's CA for people, or makes it.
func openPeopleCA(f StateDir) (*peopleCA, error) {
	text, err := os.ReadFile(f.peopleCA())
	if errors.Is(err, os.ErrNotExist) {
		ca := &peopleCA{}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make the people's CA: %w", err)
		}
		template := &x509.Certificate{
			Subject: pkix.Name{
				Organization: []string{"Security Training"},
				CommonName:   "People of the lab " + filepath.Base(string(f)),
			},
			IsCA:                  true,
			BasicConstraintsValid: true,
			MaxPathLenZero:        true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		ca.key = key
		if ca.cert, err = ca.sign(template, template, key.Public(), peopleCALife); err != nil {
			return nil, fmt.Errorf("make the people's CA: %w", err)
		}
		kept, err := keyPEM(key)
		if err != nil {
			return nil, fmt.Errorf("make the people's CA: %w", err)
		}
		return ca, Replace(f.peopleCA(), append(certPEM(ca.cert), kept...), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("read the people's CA: %w", err)
	}
	first, rest := pem.Decode(text)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil {
		return nil, fmt.Errorf("read the people's CA %s: want a certificate and a key", f.peopleCA())
	}
	ca := &peopleCA{}
	if ca.cert, err = x509.ParseCertificate(first.Bytes); err != nil {
		return nil, fmt.Errorf("read the people's CA: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the people's CA: %w", err)
	}
	ca.key = key.(*ecdsa.PrivateKey) // we wrote it
	return ca, nil
}

func (ca *peopleCA) sign(
	template, parent *x509.Certificate,
	public crypto.PublicKey,
	life time.Duration,
) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-backdate), now.Add(life)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// issue makes a key and a certificate for it.
func (ca *peopleCA) issue(template *x509.Certificate, life time.Duration) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	c, err := ca.sign(template, ca.cert, k.Public(), life)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(k)
	return certPEM(c), key, err
}

// PeopleTLS makes a certificate for the workload that serves people by HTTPS at host or, if listen is set, on the
// network. It returns the files server.pem, server.key and clients.pem, which is the CA of people's certificates.
func (s *Server) PeopleTLS(host, listen string) (map[string][]byte, error) {
	names, addresses := peopleNames(host, listen)
	cert, key, err := s.people.issue(&x509.Certificate{
		Subject:  pkix.Name{CommonName: names[0]},
		DNSNames: names, IPAddresses: addresses, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, peopleServerLife)
	if err != nil {
		return nil, fmt.Errorf("certify the dashboard to people: %w", err)
	}
	return map[string][]byte{"server.pem": cert, "server.key": key, "clients.pem": certPEM(s.people.cert)}, nil
}

// peopleNames returns the names and addresses at which people reach the dashboard. If it listens on the network they
// include this machine's own.
func peopleNames(host, listen string) ([]string, []net.IP) {
	names := []string{"localhost"}
	addresses := []net.IP{net.ParseIP(host)}
	if listen == "" {
		return names, addresses
	}
	room := listenHost(listen)
	ip := net.ParseIP(room)
	switch {
	case ip == nil:
		names = append(names, room)
	case !ip.IsUnspecified():
		addresses = append(addresses, ip)
	default:
		if name, err := os.Hostname(); err == nil && name != "localhost" {
			names = append(names, name)
		}
		own, _ := net.InterfaceAddrs() // without them, browsers show a warning
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok {
				addresses = append(addresses, n.IP)
			}
		}
	}
	return names, addresses
}

func listenHost(listen string) string {
	if host, _, err := net.SplitHostPort(listen); err == nil {
		return host
	}
	return listen
}

// Room is the host and port for people with certificates. If the lab listens on the network, the host is this machine's
// address there.
func Room(host string, port int, listen string) string {
	at := strconv.Itoa(port)
	if listen != "" {
		own := host
		host = listenHost(listen)
		if _, p, err := net.SplitHostPort(listen); err == nil {
			at = p
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			_, addresses := peopleNames(own, listen)
			i := slices.IndexFunc(addresses, func(a net.IP) bool { return a.To4() != nil && !a.IsLoopback() })
			host = addresses[max(0, i)].String()
		}
	}
	return "https://" + net.JoinHostPort(host, at)
}

// personRequest asks for a certificate, for a person of the roster or for a role that belongs to no person.
type personRequest struct {
	Name string `json:"name"`
	Role string `json:"role"` // person, instructor or admin
}

// PersonalCertificate is a person's certificate with its key and its CA, each in PEM.
type PersonalCertificate struct {
	Cert []byte `json:"cert"`
	Key  []byte `json:"key"`
	CA   []byte `json:"ca"`
}

func (s *Server) certifyPerson(w http.ResponseWriter, r *http.Request) error {
	var req personRequest
	if err := httpjson.Read(w, r, 1<<16, &req); err != nil {
		return err
	}
	if req.Name == "" || !slices.Contains([]string{"person", "instructor", "admin"}, req.Role) {
		return fmt.Errorf("certify %q as %q: want a name and a role", req.Name, req.Role)
	}
	cert, key, err := s.people.issue(&x509.Certificate{
		Subject: pkix.Name{
			Organization:       []string{"Security Training"},
			OrganizationalUnit: []string{req.Role},
			CommonName:         req.Name,
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, peopleLife)
	if err != nil {
		return err
	}
	s.audit.Write(audit.Entry{Kind: "certificate", Person: req.Name, Detail: "for a browser, as " + req.Role})
	return httpjson.Write(w, http.StatusOK, PersonalCertificate{Cert: cert, Key: key, CA: certPEM(s.people.cert)})
}

// CertificatesUntil returns a time that separates certificates: the validity of all that were signed before the call
// begins then or earlier, and of all that are signed after it begins later. Certificates have whole seconds, so the
// call can take one second.
func (l *Lab) CertificatesUntil(ctx context.Context, name, role string) (time.Time, error) {
	var u until
	return u.Time, l.admin.call(ctx, http.MethodPost, "/v1/certificate/until", personRequest{Name: name, Role: role}, &u)
}

type until struct {
	Time time.Time `json:"time"`
}

func (s *Server) certificatesUntil(w http.ResponseWriter, r *http.Request) error {
	var req personRequest
	if err := httpjson.Read(w, r, 1<<16, &req); err != nil {
		return err
	}
	now := time.Now()
	over := time.NewTimer(now.Truncate(time.Second).Add(time.Second).Sub(now))
	defer over.Stop()
	select {
	case <-r.Context().Done():
		return r.Context().Err()
	case <-over.C:
	}
	u := until{now.Add(-backdate).Truncate(time.Second).UTC()}
	s.audit.Write(
		audit.Entry{
			Kind:   "certificate",
			Person: req.Name,
			Detail: "to be revoked, as " + req.Role + ": all that begin by " + u.Time.Format(time.RFC3339),
		},
	)
	return httpjson.Write(w, http.StatusOK, u)
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
