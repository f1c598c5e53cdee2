package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/lms/lmsapi"
)

// certify writes a PKCS#12 file for a browser and prints its owner, path and password. For a person of the roster, role
// is "person"; otherwise name is the role.
func certify(ctx context.Context, l *control.Lab, name, role, dir string, out io.Writer) error {
	c, err := l.Certify(ctx, name, role)
	if err != nil {
		return err
	}
	password := rand.Text()[:16]
	file, err := pkcs12File(c, password)
	if err != nil {
		return fmt.Errorf("write certificate of %s: %w", name, err)
	}
	path := filepath.Join(dir, name+".p12")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		return fmt.Errorf("write certificate of %s: %w", name, err)
	}
	_, err = fmt.Fprintf(out, "%s\t%s\t%s\n", name, path, password)
	return err
}

// revoke makes the dashboard refuse every certificate that was made so far for a person or a role, and prints the owner
// and the time until which they were made. The person need not be in the roster.
func revoke(ctx context.Context, l *control.Lab, o *operator.Operator, name, role string, out io.Writer) error {
	order := lmsapi.Revocation{Name: name, Role: role}
	var err error
	if order.Before, err = l.CertificatesUntil(ctx, order.Name, order.Role); err != nil {
		return fmt.Errorf("revoke certificates of %s: %w", order.Name, err)
	}
	if err := o.Ask(ctx, lmsapi.RouteRevocations, order, &order); err != nil {
		return fmt.Errorf("revoke certificates of %s: %w", order.Name, err)
	}
	_, err = fmt.Fprintf(out, "%s\trevoked\t%s\n", order.Name, order.Before.Format(time.RFC3339))
	return err
}

func pkcs12File(c control.PersonalCertificate, password string) ([]byte, error) {
	leaf, err := certificateOf(c.Cert)
	if err != nil {
		return nil, err
	}
	ca, err := certificateOf(c.CA)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(c.Key)
	if block == nil {
		return nil, errors.New("no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return pkcs12.Modern.Encode(key, leaf, []*x509.Certificate{ca}, password)
}

func certificateOf(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
