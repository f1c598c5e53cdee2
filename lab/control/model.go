package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
)

// Model says what writes a lab's lessons, as the caller's environment asks for it. A field is "" if the environment
// leaves it open.
type Model struct {
	Backend string // gemini or stub
	Name    string // the name of Gemini's model
	Key     string
}

const (
	backendGemini = "gemini"
	backendStub   = "stub"
	defaultModel  = "gemini-2.5-flash"
)

// ModelOf reads LLM_BACKEND, GEMINI_MODEL, and the key from GEMINI_API_KEY_FILE or GEMINI_API_KEY; the file is the
// safer way. If there is a key and no backend, the backend is Gemini.
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

// KeysGiven returns all keys and secrets in the caller's environment, whether a lab uses them or not.
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

// Choose completes m for a new lab. Without a backend it chooses the stub. It refuses Gemini without a key.
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

// mark identifies the key of m without revealing it. It is "" if there is no key.
func (m Model) mark() string {
	return mark("which key of a lab", m.Key)
}

// mark identifies a secret among those of the same purpose without revealing it. It is "" if there is no secret.
func mark(purpose, secret string) string {
	if secret == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(purpose + ": " + secret))
	return hex.EncodeToString(sum[:8])
}

// Chosen stores the model in the settings. Of the key it stores only the mark.
func (s *Settings) Chosen(m Model) { s.Backend, s.Model, s.KeyMark = m.Backend, m.Name, m.mark() }

// Same returns an error if the lab of f was made differently from what the caller asks for now, by want or by the
// environment: the model, the provider of identities, the folder of pages, profiles. What the environment leaves open
// may be anything.
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

// PprofOf reads LAB_PPROF: whether each workload serves Go's profiles on a socket of its own.
func PprofOf(lookup env.Lookup) (bool, error) {
	e := env.Read(lookup)
	on := e.OneOf("LAB_PPROF", "0", "1") == "1"
	if err := e.Err(); err != nil {
		return false, &lab.Error{Code: lab.ExitUsage, What: "read LAB_PPROF", Why: err}
	}
	return on, nil
}

// same returns a conflict that names every setting in which the lab differs from what the caller asks for.
func (s Settings) same(want lab.Spec, m Model, p Provider) error {
	differs := slices.Concat(s.specDiffers(want), s.modelDiffers(m), s.providerDiffers(p))
	if len(differs) == 0 {
		return nil
	}
	return s.conflict(want, differs)
}

// difference is one setting of a lab, as the caller would have to write it, and whether the caller asks for another.
type difference struct {
	is      bool
	setting string
}

// only returns the settings that differ.
func only(list ...difference) []string {
	var out []string
	for _, d := range list {
		if d.is {
			out = append(out, d.setting)
		}
	}
	return out
}

// specDiffers compares the flags of `lab up`. An empty --listen and --identity auto ask for nothing.
func (s Settings) specDiffers(want lab.Spec) []string {
	is := s.Spec
	asked := want.Identity != "" && want.Identity != "auto"
	return only(
		difference{is.People != want.People, fmt.Sprintf("--people %d", is.People)},
		difference{is.Seed != want.Seed, fmt.Sprintf("--seed %d", is.Seed)},
		difference{is.Days != want.Days, fmt.Sprintf("--days %d", is.Days)},
		difference{is.Pace != want.Pace, fmt.Sprintf("--pace %g", is.Pace)},
		difference{want.Listen != "" && is.Listen != want.Listen, fmt.Sprintf("--listen %q", is.Listen)},
		difference{asked && s.Identity != "" && s.Identity != want.Identity, "--identity " + s.Identity},
	)
}

// modelDiffers compares the model. Labs that an older version made do not know theirs, and differ in nothing.
func (s Settings) modelDiffers(m Model) []string {
	if s.Backend == "" {
		return nil
	}
	key := "another key of Gemini"
	if s.KeyMark == "" {
		key = "no key of Gemini"
	}
	return only(
		difference{m.Backend != "" && s.Backend != m.Backend, "LLM_BACKEND=" + s.Backend},
		difference{m.Name != "" && s.Model != m.Name, "GEMINI_MODEL=" + s.Model},
		difference{m.Key != "" && s.KeyMark != m.mark(), key},
	)
}

// providerDiffers compares the provider of identities. If the issuer differs, its other settings mean nothing.
func (s Settings) providerDiffers(p Provider) []string {
	is := s.Provider
	if p.Issuer != is.Issuer {
		issuer := "OIDC_ISSUER=" + is.Issuer
		if is.Issuer == "" {
			issuer = "no OIDC_ISSUER"
		}
		return only(difference{p.Issuer != "", issuer})
	}
	return only(
		difference{p.Issuer != "" && p.Client != is.Client, "OIDC_CLIENT_ID=" + is.Client},
		difference{p.Redirect != "" && p.Redirect != is.Redirect, "OIDC_REDIRECT_URL=" + is.Redirect},
		difference{p.Secret != "" && p.Mark != is.Mark, "another OIDC_CLIENT_SECRET_FILE"},
	)
}

// conflict is the error that lists how a lab was made, where that differs from what the caller asks for.
func (Settings) conflict(want lab.Spec, differs []string) error {
	return &lab.Error{
		Code: lab.ExitConflict,
		What: "bring up " + want.Name,
		Why:  fmt.Errorf("it is there, made with %s", strings.Join(differs, ", ")),
		Try:  "lab down --name " + want.Name + "   (or another --name)",
	}
}
