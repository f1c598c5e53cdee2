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
	"slices"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/risk"
)

// certify writes a PKCS#12 file for a browser and prints whose it is, where it is and its password: for a person of the
// roster or, where name is empty, for role.
func certify(ctx context.Context, l *control.Lab, o *operator.Operator, name, role, dir string, out io.Writer) error {
	if name == "" {
		name = role
	} else {
		listed, err := inRoster(ctx, o, name)
		if err != nil {
			return err
		}
		if !listed {
			return &lab.Error{
				Code: lab.ExitUsage,
				What: "make a certificate",
				Why:  fmt.Errorf("nobody in the roster is %q", name),
				Try:  operator.FindPeople,
			}
		}
		role = "person"
	}
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

// revoke has the dashboard refuse every certificate that was made so far for a person, or for role where name is empty, and prints
// whose and until when they begin. Who is not in the roster, or not any more, is revoked as well, and named as an error: it may
// have been a slip of the pen.
func revoke(ctx context.Context, l *control.Lab, o *operator.Operator, name, role string, out io.Writer) error {
	order := lmsapi.Revocation{Name: name, Role: "person"}
	if name == "" {
		order.Name, order.Role = role, role
	}
	var err error
	if order.Before, err = l.CertificatesUntil(ctx, order.Name, order.Role); err != nil {
		return fmt.Errorf("revoke certificates of %s: %w", order.Name, err)
	}
	if err := o.Ask(ctx, lmsapi.RouteRevocations, order, &order); err != nil {
		return fmt.Errorf("revoke certificates of %s: %w", order.Name, err)
	}
	if _, err := fmt.Fprintf(out, "%s\trevoked\t%s\n", order.Name, order.Before.Format(time.RFC3339)); err != nil {
		return err
	}
	if name == "" {
		return nil
	}
	listed, err := inRoster(ctx, o, name)
	if err == nil && !listed {
		err = &lab.Error{
			Code: lab.ExitUsage,
			What: "revoked",
			Why:  fmt.Errorf("but nobody in the roster is %q", name),
			Try:  operator.FindPeople,
		}
	}
	return err
}

func inRoster(ctx context.Context, o *operator.Operator, name string) (bool, error) {
	roster, err := operator.People(ctx, o)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(roster, func(s risk.Standing) bool { return s.ID == name }), nil
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
