package lesson

import (
	"html"
	"regexp"
	"strings"
	"unicode"
)

// Removed replaces a link.
const Removed = "(link removed)"

var (
	imageOrLink = regexp.MustCompile(`!?\[([^\[\]]*)\]\s?\([^()]*\)`)
	reference   = regexp.MustCompile(`!?\[([^\[\]]*)\]\[[^\[\]]*\]`)
	comment     = regexp.MustCompile(`(?s)<!--.*?(-->|$)`)
	element     = regexp.MustCompile(`<[/!?]?[A-Za-z][^<>]*>`)
	openElement = regexp.MustCompile(`<([/!?]*[A-Za-z])`)
	// Anything with a scheme and //, the schemes that act without it, and bare names under the usual top-level domains:
	// a lesson must not contain links.
	address = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://\S*|` +
		`\b(?:javascript|vbscript|mailto|tel|sms|blob):\S+|\bdata:[a-z]+/\S*|\bwww\.\S+|` +
		`(?:^|\b)(?:[a-z0-9-]+\.)+(?:com|net|org|io|dev|app|co|info|biz|xyz|top|ru|cn|me|ai|cloud|link|click|site|online)` +
		`(?:[:/]\S*|\b)`)
	slashes = regexp.MustCompile(`(^|\s)//\S+`)

	// Names that look like an address: storage locations, which no browser opens, and modules of source code. A lesson may
	// name modules of the usual hosts; the detail of an event may name any.
	bucket      = regexp.MustCompile(`^(?:s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]+(?:/[A-Za-z0-9._~+=/-]*)?$`)
	module      = regexp.MustCompile(`^[a-z0-9.-]+\.[a-z]+/[A-Za-z0-9._~/-]+(?:@v[0-9][A-Za-z0-9.+-]*)?$`)
	moduleHosts = regexp.MustCompile(
		`^(?:(?:github\.com|gitlab\.com|bitbucket\.org)/[^/]+/[^/@]|` +
			`golang\.org/x/|google\.golang\.org/|gopkg\.in/|go\.uber\.org/|` +
			`(?:sigs\.)?k8s\.io/|go\.opentelemetry\.io/|cloud\.google\.com/go)`,
	)
)

// names says whether an address, with the text right after it, is a name that a lesson may contain.
func names(address string) bool {
	address = strings.TrimRight(address, ".,;:)'\"’”")
	return bucket.MatchString(address) || module.MatchString(address) && moduleHosts.MatchString(address)
}

// namesAny is names for modules of any host.
func namesAny(address string) bool {
	address = strings.TrimRight(address, ".,;:)'\"’”")
	return bucket.MatchString(address) || module.MatchString(address) && !strings.HasPrefix(address, "www.")
}

// Clean turns untrusted text into plain text on one line. It removes control, invisible, direction-changing and tag
// characters, HTML, and Markdown's links, images and emphasis. The text of a link stays, an address becomes Removed.
// Names of buckets and of modules of source code stay. Clean(Clean(s)) equals Clean(s).
func Clean(s string) string { return clean(s, names) }

// CleanDetail is Clean for the detail of an event: module names of any host stay.
func CleanDetail(s string) string { return clean(s, namesAny) }

func clean(s string, stays func(address string) bool) string {
	// A removal can produce something else to remove ("<scr<b>ipt>"), so it is repeated until nothing changes. The limit
	// is for hostile input, of which nothing is kept.
	for range 64 {
		next := cleanOnce(s, stays)
		if next == s {
			return s
		}
		s = next
	}
	return ""
}

// Visible is s without control, invisible, direction-changing and tag characters, and with every kind of space as a
// plain one.
func Visible(s string) string { return strings.Map(visible, strings.ToValidUTF8(s, "")) }

func cleanOnce(s string, stays func(string) bool) string {
	s = Visible(html.UnescapeString(Visible(s)))
	s = comment.ReplaceAllString(s, "")
	if next := element.ReplaceAllString(s, ""); next != s {
		return next // the rest may be an element now; only a single "<" is handled below
	}
	s = openElement.ReplaceAllString(s, "$1")
	s = imageOrLink.ReplaceAllString(s, "$1")
	s = reference.ReplaceAllString(s, "$1")
	s = address.ReplaceAllStringFunc(s, func(a string) string {
		if stays(a) {
			return a
		}
		return Removed
	})
	s = slashes.ReplaceAllString(s, "$1"+Removed)
	s = strings.NewReplacer("**", "", "```", "").Replace(s)
	return strings.Join(strings.Fields(s), " ")
}

// visible keeps a visible character, turns every kind of space into a plain one, and drops the rest.
func visible(r rune) rune {
	switch {
	case unicode.IsSpace(r), unicode.Is(unicode.Z, r):
		return ' '
	case Invisible(r):
		return -1
	}
	return r
}

// Invisible says whether r is invisible or changes the display of other characters: controls, formats, tags, fillers.
func Invisible(r rune) bool {
	return unicode.Is(unicode.C, r) || // controls, formats (zero width, direction, tags), surrogates, private use
		r >= 0xFE00 && r <= 0xFE0F || r >= 0xE0000 || // variation selectors, tags, and everything beyond
		r >= 0xFFF0 && r <= 0xFFFF ||
		// Fillers and blanks.
		r == 0x034F || r == 0x115F || r == 0x1160 || r == 0x17B4 || r == 0x17B5 || r == 0x2800 || r == 0x3164 ||
		r == 0xFFA0 ||
		r >= 0x180B && r <= 0x180F
}

// Clean is c with every text cleaned.
func (c Content) Clean() Content {
	c.Title, c.Summary = Clean(c.Title), Clean(c.Summary)
	c.Objectives = cleanAll(c.Objectives)
	practices := make([]Practice, len(c.Practices))
	for i, p := range c.Practices {
		practices[i] = Practice{Title: Clean(p.Title), Why: Clean(p.Why), How: Clean(p.How)}
	}
	quiz := make([]Question, len(c.Quiz))
	for i, q := range c.Quiz {
		quiz[i] = Question{Question: Clean(q.Question), Options: cleanAll(q.Options), Answer: q.Answer, Why: Clean(q.Why)}
	}
	c.Practices, c.Quiz = practices, quiz
	return c
}

func cleanAll(texts []string) []string {
	cleaned := make([]string, len(texts))
	for i, s := range texts {
		cleaned[i] = Clean(s)
	}
	return cleaned
}
