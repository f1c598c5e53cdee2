package env_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/env"
)

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := env.Read(env.Map(map[string]string{
		"BLANK": "", "COUNT": "many", "WAIT": "soon", "BACK": "-5s", "MODE": "loud", "KEY_FILE": "/nowhere/key",
		"EMPTY_FILE": empty,
	}))
	r.Required("MISSING")
	r.Required("BLANK")
	r.Int("COUNT", 1)
	r.Duration("WAIT", 0)
	r.Duration("BACK", 0)
	r.OneOf("MODE", "quiet", "plain")
	r.Secret("KEY_FILE")
	r.Secret("EMPTY_FILE")
	r.Secret("NO_FILE")
	err := r.Err()
	if err == nil {
		t.Fatal("nine faults are none")
	}
	for _, name := range []string{"MISSING", "BLANK", "COUNT", "WAIT", "BACK", "MODE", "KEY_FILE", "EMPTY_FILE",
		"NO_FILE"} {
		if strings.Count(err.Error(), name+": ") != 1 {
			t.Errorf("%s is not told once in:\n%v", name, err)
		}
	}
}

func TestSettingsAndDefaults(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("  s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := env.Read(env.Map(map[string]string{"NAME": "lms", "COUNT": "7", "WAIT": "1m30s", "MODE": "plain",
		"KEY_FILE": secret, "BLANK": ""}))
	for _, c := range []struct{ got, want any }{
		{r.Required("NAME"), "lms"},
		{r.Optional("NAME", "x"), "lms"},
		{r.Optional("MISSING", "x"), "x"},
		{r.Optional("BLANK", "x"), "x"},
		{r.Int("COUNT", 1), 7},
		{r.Int("MISSING", 1), 1},
		{r.Duration("WAIT", 0), 90 * time.Second},
		{r.Duration("MISSING", time.Second), time.Second},
		{r.OneOf("MODE", "quiet", "plain"), "plain"},
		{r.OneOf("MISSING", "quiet", "plain"), "quiet"},
		{string(r.Secret("KEY_FILE")), "s3cret"},
	} {
		if c.got != c.want {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestFaultOfASecretDoesNotTellIt(t *testing.T) {
	r := env.Read(env.Map(map[string]string{"KEY_FILE": "AIzaSyNotAPathButTheKeyItself"}))
	r.Secret("KEY_FILE")
	if err := r.Err(); err == nil || strings.Contains(err.Error(), "AIza") {
		t.Errorf("a key in the place of its file's name: %v", err)
	}
}
