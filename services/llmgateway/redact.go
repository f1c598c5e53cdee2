package llmgateway

import (
	"net/netip"
	"regexp"
	"strings"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/source"
)

// The replacements in a redacted text. Square brackets would be taken for a link.
const (
	redactedPerson  = "‹person›"
	redactedAddress = "‹address›"
	redactedSecret  = "‹secret›"
)

var (
	mailPattern    = regexp.MustCompile(`[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*`)
	versionPattern = regexp.MustCompile(`@v[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*$`)
	accountPattern = regexp.MustCompile(`\b(?:` + strings.Join(activity.AccountSystems(), "|") + `):[^\s,;()]+`)
	arnPattern     = regexp.MustCompile(`\barn:aws[a-z-]*:[^\s,;()]+`)
	handlePattern  = regexp.MustCompile(`(^|[^\p{L}\p{N}_])@[A-Za-z0-9][A-Za-z0-9_-]+`)
	trailerPattern = regexp.MustCompile(`(?i)\b((?:signed-off|co-authored|reviewed)-by|` +
		`author|committer|pusher|assignee|reporter|user(?:name)?)(\s*[:=]\s*)[^,;()]+`)
	homePattern   = regexp.MustCompile(`(?i)(/home/|/users/|\\users\\)[^\s/\\]+`)
	numberPattern = regexp.MustCompile(`\+[0-9][0-9 ()/-]{7,}[0-9]`)
	ipPattern     = regexp.MustCompile(`[0-9A-Fa-f]*(?:[.:][0-9A-Fa-f]*){2,10}(?:%[\w]+)?`)
	tokenPattern  = regexp.MustCompile(`[A-Za-z0-9+_]{20,}={0,2}`)
	loginPattern  = regexp.MustCompile(`(^|[^\p{L}\p{N}/._-])(\p{Ll}{2,}\.\p{Ll}{2,})($|[^\p{L}\p{N}/._-])`)
	namePattern   = regexp.MustCompile(`\p{Lu}\p{Ll}+(?:[-'’]\p{Lu}\p{Ll}+)?(?: \p{Lu}\.)?` +
		`(?: (?:van|von|de|da|del|di|der|den))* \p{Lu}[\p{L}'’-]*\p{Ll}`)
)

// notLogins are endings of file names: config.yaml is not a login.
var notLogins = setOf(`
	env yaml yml json toml tfvars tf tfstate go py js ts tsx jsx sh bash pem key crt cer lock txt md sql csv tsv xml
	ini conf cfg properties html css scss java kt rb rs zip gz tar tgz jar war mod sum log pkl parquet avro db sqlite
	bak dump ipynb gradle example local prod dev
`)

// notNames are words of titles in title case. A pair of capitalised words with one of them stays; every other pair is
// taken for a name, since this costs a lesson little.
var notNames = setOf(`
	access account action activity admin administrator alert analyzer anomalous application attachment attempt attempts
	aws azure backup blocked brute bucket clicked cloud command commit connection control credential credentials
	critical data database detected device dns document domain download endpoint escalation event excessive executable
	exfiltration export failed failure file files finding firewall force git github google group high impossible
	internal internet jira key large lateral link local location login low macro mail malicious malware medium message
	mfa multiple network new office okta outbound package password phishing policy port possible potential power
	powershell privilege process production public pull push ransomware remote removable report reported repeated
	request risk role secret security server service session sign signin software source storage suspected suspicious
	system ticket token tool traffic transfer travel trojan unapproved unauthorized unknown unusual upload usage usb
	user users violation virus visited volume web windows write attached user's the a an of to in on from by and for
	with
`)

func setOf(words string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// Redact removes from a text what could identify a person or give access: names, logins, mail and network addresses,
// numbers, keys and tokens. It is a second line of defence: the learning system sends none of these, and the collectors
// scrub secrets. In case of doubt it removes too much. It also removes markup and links; names of buckets and modules
// stay.
func Redact(s string) string {
	s = source.ScrubText(s)                 // before lines are joined
	s = source.ScrubText(lesson.Visible(s)) // invisible characters must not split a secret
	s = strings.ReplaceAll(s, source.Scrubbed, redactedSecret)
	s = mailPattern.ReplaceAllStringFunc(s, func(m string) string {
		if versionPattern.MatchString(m) { // a module's version
			return m
		}
		return redactedAddress
	})
	s = arnPattern.ReplaceAllString(s, redactedAddress)
	s = accountPattern.ReplaceAllString(s, redactedPerson)
	s = trailerPattern.ReplaceAllString(s, "${1}${2}"+redactedPerson)
	s = homePattern.ReplaceAllString(s, "${1}"+redactedPerson)
	s = handlePattern.ReplaceAllString(s, "${1}"+redactedPerson)
	s = numberPattern.ReplaceAllString(s, redactedAddress)
	s = ipPattern.ReplaceAllStringFunc(s, func(m string) string {
		trimmed := strings.TrimRight(m, ".:")
		if _, err := netip.ParseAddr(trimmed); err != nil {
			if _, err = netip.ParseAddr(m); err != nil {
				return m
			}
			return redactedAddress
		}
		return redactedAddress + m[len(trimmed):]
	})
	s = tokenPattern.ReplaceAllStringFunc(s, func(m string) string {
		if strings.ContainsAny(m, "0123456789") && strings.ContainsFunc(m, isLetter) {
			return redactedSecret
		}
		return m
	})
	s = redactLogins(s)
	s = redactNames(s)
	return lesson.CleanDetail(s)
}

// redactLogins continues after the login, not after the match, which includes the separator before the next login.
func redactLogins(s string) string {
	var out strings.Builder
	for {
		at := loginPattern.FindStringSubmatchIndex(s)
		if at == nil {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:at[4]])
		if login := s[at[4]:at[5]]; isLogin(login) {
			out.WriteString(redactedPerson)
		} else {
			out.WriteString(login)
		}
		s = s[at[5]:]
	}
}

// isLogin tells whether first.last is a person's login. A verb (git.force_push) is none, nor is a file's name.
func isLogin(s string) bool {
	first, last, _ := strings.Cut(s, ".")
	return !activity.Source(first).Listed() && !notLogins[last]
}

// redactNames takes pairs of capitalised words for names, except those with one of notNames. The second word of such a
// pair may begin a name ("Policy Mira Keller"), so the search continues there.
func redactNames(s string) string {
	var out strings.Builder
	for {
		at := namePattern.FindStringIndex(s)
		if at == nil {
			out.WriteString(s)
			return out.String()
		}
		pair := s[at[0]:at[1]]
		if isName(pair) {
			out.WriteString(s[:at[0]] + redactedPerson)
			s = s[at[1]:]
			continue
		}
		behind := at[0] + strings.IndexByte(pair, ' ') + 1
		out.WriteString(s[:behind])
		s = s[behind:]
	}
}

func isName(words string) bool {
	for w := range strings.FieldsSeq(words) {
		if notNames[strings.ToLower(w)] {
			return false
		}
	}
	return true
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
