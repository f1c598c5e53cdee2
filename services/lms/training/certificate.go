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

	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// A certificate says that a person passed a module. Its number is the id of the lesson followed by a MAC, in base32: it
// can be typed, cannot be forged, and is checked without a query. The MAC is the first 10 bytes of an HMAC-SHA256 with
// a key that only the schema training holds.

const certificateMAC = 10 // bytes

// numbering is Crockford's base32, which has no I, L, O and U.
var numbering = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// macOf is the MAC of a lesson's certificate.
func macOf(key []byte, lesson uuid.UUID) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("certificate\x00"))
	m.Write(lesson[:])
	return m.Sum(nil)[:certificateMAC]
}

// CertificateNumber is the number of a lesson's certificate, in groups of six characters.
func CertificateNumber(key []byte, lesson uuid.UUID) string {
	text := numbering.EncodeToString(append(slices.Clone(lesson[:]), macOf(key, lesson)...))
	var groups []string
	for part := range slices.Chunk([]byte(text), 6) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, "-")
}

// readNumber returns the lesson of a certificate number; false if the number was not made with key. It ignores case,
// spaces and dashes, and reads O as 0, I and L as 1.
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
	return lesson, hmac.Equal(b[16:], macOf(key, lesson))
}

type certificateView struct {
	Number  string
	Holder  string
	Module  risk.Module
	Teaches []string
	On      time.Time
	Percent float64
	Lesson  string
	Asked   string // the number to verify, as typed
	Known   bool   // the form was sent
	Valid   bool
	Deleted bool // the record of this certificate was deleted; On is zero if its date is unknown
}

// certificateOf is the certificate of a passed lesson, without its number.
func (tr *Training) certificateOf(t LessonRecord, holder, zone string) certificateView {
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

// ShowCertificate shows a certificate for printing, to the learner or an instructor. 404 if the lesson is not passed.
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
	holder := tr.scorer.Names()(t.Person)
	m := tr.certificateOf(t, holder.Name, holder.Zone)
	m.Number = CertificateNumber(key, t.ID)
	return tr.site.Render(req, "certificate", "Certificate", "/training", m)
}

// ShowVerify shows anyone who has the number of a certificate whether it is valid, and its content.
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
		if errors.Is(err, store.ErrNotFound) { // the MAC shows that the certificate existed
			m.Deleted = true
			if m.On, err = tr.Store.deletedCertificate(req.Ctx(), id); err != nil {
				return err
			}
			m.Number = CertificateNumber(key, id)
		} else if t.Completion != nil && t.Completion.Passed {
			holder := tr.scorer.Names()(t.Person)
			asked := m.Asked
			m = tr.certificateOf(t, holder.Name, holder.Zone)
			m.Asked, m.Number, m.Known, m.Valid = asked, CertificateNumber(key, id), true, true
		}
	}
	req.GuessFailed = !m.Valid
	return tr.site.Render(req, "verify", "Verify a certificate", "", m)
}
