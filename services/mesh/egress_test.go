package mesh_test

import (
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"example.org/security-training/services/mesh"
)

// TestTheWayOutKnowsGoogleWhereTheSystemKnowsNobody runs itself again on a system without any certificate, as in our
// image, and verifies Google's own root there with what the way out verifies with.
func TestTheWayOutKnowsGoogleWhereTheSystemKnowsNobody(t *testing.T) {
	if len(os.Args) > 0 && strings.HasSuffix(os.Args[len(os.Args)-1], "without-roots") {
		verifyGoogle(t)
		return
	}
	empty := t.TempDir()
	file := filepath.Join(empty, "none.crt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "without-roots")
	cmd.Env = append(cmd.Environ(), "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+filepath.Join(empty, "none"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "verified ") {
		t.Fatalf("without the system's certificates: %v\n%s", err, out)
	}
}

func verifyGoogle(t *testing.T) {
	way, ok := new(mesh.Node).Egress().Transport.(*http.Transport)
	if !ok {
		t.Fatal("the way out is none of net/http")
	}
	roots := way.TLSClientConfig.RootCAs // nil: the process's own, which Verify takes in the same way
	for c := range bundle.Roots() {
		cert, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.CommonName != "GTS Root R1" {
			continue
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Fatal(err)
		}
		t.Log("verified", cert.Subject)
		return
	}
	t.Fatal("Google's root is not among the embedded ones")
}
