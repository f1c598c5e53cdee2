package training

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// A certificate says that somebody passed a module. Its number is the lesson's id and the first 10 bytes of an HMAC-SHA256
// over it under a key that only the schema training holds, in base32: it can be read out and typed, nobody can make one up,
// and a number that was never given out is told from a true one without looking anything up.

const certificateMAC = 10 // bytes: 80 bits

var numbering = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding) // Crockford's: no I, L, O, U

func sealOf(key []byte, lesson uuid.UUID) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("certificate\x00"))
	m.Write(lesson[:])
	return m.Sum(nil)[:certificateMAC]
}

// CertificateNumber is the number in groups of six.
func CertificateNumber(key []byte, lesson uuid.UUID) string {
	text := numbering.EncodeToString(append(slices.Clone(lesson[:]), sealOf(key, lesson)...))
	var groups []string
	for part := range slices.Chunk([]byte(text), 6) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, "-")
}

// readNumber is the lesson that a number is about, if the number was given out with this key. Case, spaces and dashes do not
// matter, nor does taking O for 0 or I and L for 1.
func readNumber(key []byte, number string) (uuid.UUID, bool) {
	if len(number) > 200 {
		return uuid.Nil, false
	}
	plain := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(number))
	b, err := numbering.DecodeString(plain)
	if err != nil || len(b) != 16+certificateMAC || numbering.EncodeToString(b) != plain {
		return uuid.Nil, false
	}
	lesson := uuid.UUID(b[:16])
	return lesson, hmac.Equal(b[16:], sealOf(key, lesson))
}

type certificateView struct {
	Number  string
	Holder  string
	Module  risk.Module
	Teaches []string
	On      time.Time
	Percent float64
	Lesson  string
	Asked   string // to be verified, as it was typed
	Known   bool   // the form was sent
	Valid   bool
	Deleted bool // it was given out, and its record was deleted since; On is zero if its date is not known
}

func (tr *Training) certificateOf(t Taught, holder, zone string) certificateView {
	m, _ := risk.ModuleByID(t.Module)
	c := certificateView{
		Holder:  holder,
		Module:  m,
		On:      t.Completion.At.In(words.Location(zone)),
		Percent: t.Completion.Share,
		Lesson:  t.ID.String(),
	}
	for _, v := range m.Teaches {
		c.Teaches = append(c.Teaches, risk.Words(v, 1))
	}
	return c
}

// ShowCertificate shows a page to be printed, to the learner or an instructor; there is none for a lesson that was not
// passed.
func (tr *Training) ShowCertificate(req *site.Request) error {
	t, err := tr.ownLesson(req)
	if err != nil {
		return err
	}
	if t.Completion == nil || !t.Completion.Passed {
		return site.NotFound()
	}
	key, err := tr.Store.CertificateKey(req.Ctx())
	if err != nil {
		return err
	}
	name, zone := tr.holder(t.Person)
	m := tr.certificateOf(t, name, zone)
	m.Number = CertificateNumber(key, t.ID)
	return tr.site.Render(req, "certificate", "Certificate", "/training", m)
}

// holder is a person's name and zone by the roster, or the id where the roster does not say.
func (tr *Training) holder(person string) (name, zone string) {
	people, err := tr.scorer.People()
	var old *riskclient.Stale
	if err == nil || errors.As(err, &old) {
		for _, p := range people {
			if p.ID == person {
				return p.Name, p.Zone
			}
		}
	}
	return person, "UTC"
}

// ShowVerify says to anybody who has a certificate's number whether it is valid, and what it says. Whoever has no
// number learns nothing.
func (tr *Training) ShowVerify(req *site.Request) error {
	m := certificateView{Asked: strings.TrimSpace(req.R.URL.Query().Get("number"))}
	if m.Asked == "" {
		return tr.site.Render(req, "verify", "Verify a certificate", "", m)
	}
	if len(m.Asked) > 100 {
		m.Asked = ""
	}
	key, err := tr.Store.CertificateKey(req.Ctx())
	if err != nil {
		return err
	}
	m.Known = true
	if id, ok := readNumber(key, m.Asked); ok {
		t, err := tr.Store.lesson(req.Ctx(), id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if errors.Is(err, store.ErrNotFound) { // only a certificate that was given out has a seal
			m.Deleted = true
			if m.On, err = tr.Store.deletedCertificate(req.Ctx(), id); err != nil {
				return err
			}
			m.Number = CertificateNumber(key, id)
		} else if t.Completion != nil && t.Completion.Passed {
			name, zone := tr.holder(t.Person)
			asked := m.Asked
			m = tr.certificateOf(t, name, zone)
			m.Asked, m.Number, m.Known, m.Valid = asked, CertificateNumber(key, id), true, true
		}
	}
	req.Wrong = !m.Valid
	return tr.site.Render(req, "verify", "Verify a certificate", "", m)
}
