package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/security-training/services/risk"
)

func TestACookieOfASignInIsGoodForItsTimeAndAsItWasSealed(t *testing.T) {
	labNow := risk.Epoch
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	cookie, begun, err := beginSignIn(key, labNow)
	if err != nil || strings.Contains(cookie, begun.State) {
		t.Fatal(cookie, err)
	}
	if got, ok := endSignIn(key, cookie, labNow.Add(providerEnd-time.Second)); !ok || got.State != begun.State ||
		got.Nonce != begun.Nonce ||
		got.Verifier != begun.Verifier {
		t.Errorf("%+v, %v; want %+v", got, ok, begun)
	}
	flipped := []byte(cookie)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string]string{
		"a changed one": string(flipped), "none": "", "half of one": cookie[:len(cookie)/2], "what is no code": "%%",
	} {
		if _, ok := endSignIn(key, bad, labNow); ok {
			t.Errorf("%s is taken", name)
		}
	}
	if _, ok := endSignIn(key, cookie, labNow.Add(providerEnd)); ok {
		t.Error("one that has ended is taken")
	}
}

// silentProvider never answers.
type silentProvider struct {
	asked chan time.Duration // how long it may take
	mu    sync.Mutex
	count int
}

func (p *silentProvider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.count++
	p.mu.Unlock()
	end, ok := r.Context().Deadline()
	if !ok {
		end = time.Now().Add(time.Hour)
	}
	p.asked <- time.Until(end)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestAProviderThatIsSilentIsAskedOnceAndHoldsNobodyLongerThanTheyWait(t *testing.T) {
	silent := &silentProvider{asked: make(chan time.Duration, 10)}
	p := &Provider{Issuer: "https://id.example.org", HTTP: &http.Client{Transport: silent}}
	first, stop := context.WithCancel(t.Context())
	over := make(chan error, 2)
	go func() { _, _, err := p.discover(first); over <- err }()
	if within := <-silent.asked; within > providerWithin {
		t.Errorf("the provider may take %v", within)
	}
	second, leave := context.WithCancel(t.Context())
	leave()
	go func() { _, _, err := p.discover(second); over <- err }()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller whose context has ended: %v", err)
	}
	stop()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller whose context ends: %v", err)
	}
	silent.mu.Lock()
	defer silent.mu.Unlock()
	if silent.count != 1 {
		t.Errorf("the provider was asked %d times at once", silent.count)
	}
}
