package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// CertificateKey returns the secret key for the numbers of training certificates, 32 bytes. It is made at the first
// call, and is the same for every replica from then on.
func (s *Store) CertificateKey(ctx context.Context) ([]byte, error) {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails: https://pkg.go.dev/crypto/rand#Read
	if _, err := s.Pool.Exec(ctx, `INSERT INTO training.certificate_key (sole, key) SELECT true, $1
		WHERE NOT EXISTS (SELECT FROM training.certificate_key) ON CONFLICT DO NOTHING`, fresh); err != nil {
		return nil, fmt.Errorf("make certificate key: %w", err)
	}
	var key []byte
	if err := s.Pool.QueryRow(ctx, `SELECT key FROM training.certificate_key`).Scan(&key); err != nil {
		return nil, fmt.Errorf("read certificate key: %w", err)
	}
	return key, nil
}

// SignInKey returns the AEAD that protects the cookies of pending sign-ins. Its key is derived from the certificate
// key, so it is the same for every replica and after a restart.
func (s *Store) SignInKey(ctx context.Context) (cipher.AEAD, error) {
	key, err := s.CertificateKey(ctx)
	if err != nil {
		return nil, err
	}
	own, err := hkdf.Key(sha256.New, key, nil, "pending sign-in by a provider", 32)
	if err != nil {
		return nil, fmt.Errorf("derive key of sign-ins: %w", err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("derive key of sign-ins: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
