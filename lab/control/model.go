package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
)

// Model is who writes a lab's lessons, as the caller's environment asks for it; "" is what it does not ask for.
type Model struct {
	Backend string // gemini or stub
	Name    string // of Gemini's model
	Key     string
}

const (
	backendGemini = "gemini"
	backendStub   = "stub"
	defaultModel  = "gemini-2.5-flash"
)

// ModelOf reads LLM_BACKEND, GEMINI_MODEL and GEMINI_API_KEY_FILE or, less well, GEMINI_API_KEY. Who gives a key and
// names no backend asks for Gemini.
func ModelOf(lookup env.Lookup) (Model, error) {
	e := env.Read(lookup)
	m := Model{Backend: e.OneOf("LLM_BACKEND", "", backendGemini, backendStub), Name: e.Optional("GEMINI_MODEL", "")}
	if err := e.Err(); err != nil {
		return m, &lab.Error{Code: lab.ExitUsage, What: "choose the model", Why: err}
	}
	m.Key = e.Optional("GEMINI_API_KEY", "")
	if e.Optional("GEMINI_API_KEY_FILE", "") != "" {
		m.Key = string(e.Secret("GEMINI_API_KEY_FILE"))
	}
	if err := e.Err(); err != nil {
		return m, &lab.Error{Code: lab.ExitPrecondition, What: "read the model's key", Why: err}
	}
	if m.Backend == "" && m.Key != "" {
		m.Backend = backendGemini
	}
	return m, nil
}

// KeysGiven are all keys and secrets in the caller's environment, whether a lab would take them or not.
func KeysGiven(lookup env.Lookup) []string {
	var out []string
	e := env.Read(lookup)
	if key := e.Optional("GEMINI_API_KEY", ""); key != "" {
		out = append(out, key)
	}
	if e.Optional("GEMINI_API_KEY_FILE", "") != "" {
		if key := string(e.Secret("GEMINI_API_KEY_FILE")); key != "" {
			out = append(out, key)
		}
	}
	if e.Optional("OIDC_CLIENT_SECRET_FILE", "") != "" {
		if secret := string(e.Secret("OIDC_CLIENT_SECRET_FILE")); secret != "" {
			out = append(out, secret)
		}
	}
	return out
}

// Choose is m for a lab that is to be made: without a key, the stub. Gemini without a key is refused.
func (m Model) Choose() (Model, error) {
	if m.Backend == backendGemini && m.Key == "" {
		return m, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "choose the model",
			Why:  errors.New("LLM_BACKEND=gemini needs a key"),
			Try:  "GEMINI_API_KEY_FILE=… lab up",
		}
	}
	if m.Backend == "" {
		m.Backend = backendStub
	}
	if m.Name == "" {
		m.Name = defaultModel
	}
	return m, nil
}

// mark tells the key of m from another, and nothing else of it; "" if there is none.
func (m Model) mark() string {
	return mark("which key of a lab", m.Key)
}

// mark tells a secret from another of the same purpose, and nothing else of it; "" if there is none.
func mark(purpose, secret string) string {
	if secret == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(purpose + ": " + secret))
	return hex.EncodeToString(sum[:8])
}

// Chosen keeps what was chosen, the key by its mark alone.
func (s *Settings) Chosen(m Model) { s.Backend, s.Model, s.KeyMark = m.Backend, m.Name, m.mark() }

// Same refuses to call the lab of f done that was asked to be another: by want, or by the model and the provider of
// identities that the caller's environment asks for. Whose environment asks for nothing gets what is there.
func (f StateDir) Same(lookup env.Lookup, want lab.Spec) error {
	var s Settings
	if err := f.Read(&s); err != nil {
		return err
	}
	if err := s.sameDevDir(lookup, want); err != nil {
		return err
	}
	m, err := ModelOf(lookup)
	if err != nil {
		return err
	}
	p, err := ProviderOf(lookup)
	if err != nil {
		return err
	}
	pprof, err := PprofOf(lookup)
	if err != nil {
		return err
	}
	if pprof && !s.Pprof {
		return s.conflict(want, []string{"no LAB_PPROF=1"})
	}
	return s.same(want, m, p)
}

// PprofOf reads LAB_PPROF: whether each workload is to serve Go's profiles on a socket of its own.
func PprofOf(lookup env.Lookup) (bool, error) {
	e := env.Read(lookup)
	on := e.OneOf("LAB_PPROF", "0", "1") == "1"
	if err := e.Err(); err != nil {
		return false, &lab.Error{Code: lab.ExitUsage, What: "read LAB_PPROF", Why: err}
	}
	return on, nil
}

func (s Settings) same(want lab.Spec, m Model, p Provider) error {
	is := s.Spec
	known := s.Backend != "" // else an older version made it
	key := "another key of Gemini"
	if s.KeyMark == "" {
		key = "no key of Gemini"
	}
	issuer := "OIDC_ISSUER=" + s.Provider.Issuer
	if s.Provider.Issuer == "" {
		issuer = "no OIDC_ISSUER"
	}
	var differs []string
	for _, x := range []struct {
		differs bool
		is      string
	}{
		{is.People != want.People, fmt.Sprintf("--people %d", is.People)},
		{is.Seed != want.Seed, fmt.Sprintf("--seed %d", is.Seed)},
		{is.Days != want.Days, fmt.Sprintf("--days %d", is.Days)},
		{is.Pace != want.Pace, fmt.Sprintf("--pace %g", is.Pace)},
		{want.Listen != "" && is.Listen != want.Listen, fmt.Sprintf("--listen %q", is.Listen)},
		{
			want.Identity != "" && want.Identity != "auto" && s.Identity != "" && s.Identity != want.Identity,
			"--identity " + s.Identity,
		},
		{known && m.Backend != "" && s.Backend != m.Backend, "LLM_BACKEND=" + s.Backend},
		{known && m.Name != "" && s.Model != m.Name, "GEMINI_MODEL=" + s.Model},
		{known && m.Key != "" && s.KeyMark != m.mark(), key},
		{p.Issuer != "" && p.Issuer != s.Provider.Issuer, issuer},
		{
			p.Issuer != "" && p.Issuer == s.Provider.Issuer && p.Client != s.Provider.Client,
			"OIDC_CLIENT_ID=" + s.Provider.Client,
		},
		{
			p.Redirect != "" && p.Issuer == s.Provider.Issuer && p.Redirect != s.Provider.Redirect,
			"OIDC_REDIRECT_URL=" + s.Provider.Redirect,
		},
		{p.Secret != "" && p.Issuer == s.Provider.Issuer && p.Mark != s.Provider.Mark, "another OIDC_CLIENT_SECRET_FILE"},
	} {
		if x.differs {
			differs = append(differs, x.is)
		}
	}
	if len(differs) == 0 {
		return nil
	}
	return s.conflict(want, differs)
}

// conflict refuses to call a lab done that was asked to be another.
func (Settings) conflict(want lab.Spec, differs []string) error {
	return &lab.Error{
		Code: lab.ExitConflict,
		What: "bring up " + want.Name,
		Why:  fmt.Errorf("it is there, made with %s", strings.Join(differs, ", ")),
		Try:  "lab down --name " + want.Name + "   (or another --name)",
	}
}
