package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"example.org/security-training/lab/control"
)

const hidden = "[hidden]"

// blinder hides secrets in text: those that it knows, in every spelling in which they are commonly written, and
// anything that looks like a secret.
type blinder struct{ known [][]byte }

// newBlinder hides each of whole in every spelling, and each of words as it is.
func newBlinder(whole, words []string) *blinder {
	all := map[string]bool{}
	for _, s := range whole {
		for _, s := range []string{s, strings.TrimSpace(s)} {
			b := []byte(s)
			for _, form := range []string{
				s, url.QueryEscape(s), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b),
				base64.RawURLEncoding.EncodeToString(b),
			} {
				all[form] = true
			}
		}
	}
	for _, s := range words {
		all[s] = true
	}
	b := &blinder{}
	for s := range all {
		if len(s) >= 8 { // anything shorter is an ordinary word
			b.known = append(b.known, []byte(s))
		}
	}
	// Longest first, because one spelling may be a part of another.
	slices.SortFunc(b.known, func(x, y []byte) int { return len(y) - len(x) })
	return b
}

// looks are the shapes of common secrets. If an expression has a group, only the group is hidden.
var looks = []*regexp.Regexp{
	regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),
	regexp.MustCompile(`AIza[0-9A-Za-z_-]{16,}`),                                  // Google's API keys
	regexp.MustCompile(`eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*`), // JSON Web Tokens
	regexp.MustCompile(`(?:AKIA|ASIA)[0-9A-Z]{16}`),                               // Amazon's key ids
	regexp.MustCompile(`gh[pousr]_[0-9A-Za-z]{20,}`),                              // GitHub's tokens
	regexp.MustCompile(
		`/(?:enter|sign-in|signin|link|login)(?:/|\?[a-z]*=)([0-9A-Za-z_.~%-]{12,})`,
	), // the token of a sign-in link
	regexp.MustCompile(`(?i)(?:authorization|cookie|set-cookie)["']?\s*[:=]\s*["'\[]*([^\n"'\]]+)`),
	regexp.MustCompile(
		`(?i)[a-z_.-]*(?:password|passwd|secret|token|api[_-]?key|private[_-]?key|client-key-data)` +
			`["']?\s*[:=]\s*["']?([0-9A-Za-z_.~+/%=-]{12,})`,
	),
}

func (b *blinder) hide(text []byte) []byte {
	for _, s := range b.known {
		text = bytes.ReplaceAll(text, s, []byte(hidden))
	}
	for _, re := range looks {
		text = re.ReplaceAllFunc(text, func(found []byte) []byte {
			if at := re.FindSubmatchIndex(found); len(at) > 2 {
				return slices.Concat(found[:at[2]], []byte(hidden), found[at[3]:])
			}
			return []byte(hidden)
		})
	}
	return text
}

// keeps matches the names of files that hold a secret.
var keeps = regexp.MustCompile(`(?i)(\.key|^keys\.json$|\.secret|\.pem|\.p12|kubeconfig|token|\.ca)`)

// word matches a secret within a file: base64 or hex.
var word = regexp.MustCompile(`[0-9A-Za-z+/=]{24,}`)

func random(w string) bool {
	return strings.ContainsAny(w, "0123456789") && (strings.ToLower(w) != w || strings.Trim(w, "0123456789abcdef") == "")
}

// Limits for reading a folder that a workload can write, where there can be anything. Every word found there is
// searched for in all files of the bundle, so the workload must not decide how many there are.
const (
	longestSecret  = 16 << 10 // in bytes, all files of one folder together
	mostForeign    = 1000     // files and folders
	mostForeignOwn = 50       // files that are secrets
)

// secretsIn reads every secret in a lab's folder: each file that holds one, and the words in it that look like one. It
// reads folders that workloads can write within limits; unread says what it left out.
func secretsIn(f control.StateDir) (whole, words []string, unread, err error) {
	note := func(text []byte) {
		whole = append(whole, string(text))
		for _, w := range word.FindAllString(string(text), -1) {
			if random(w) {
				words = append(words, w)
			}
		}
	}
	theirs := []string{f.Path("pg", "tls")}
	for _, path := range below(f.Path("w"), "") {
		theirs = append(theirs, path)
	}
	err = filepath.WalkDir(string(f), func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) { // it was removed meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{f.Path("bin"), f.Path("pg"), f.Path("w")}, path) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || !keeps.MatchString(d.Name()) {
			return nil
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil {
			note(text)
		}
		return err
	})
	if os.IsNotExist(err) {
		err = nil
	}
	for _, dir := range theirs {
		unread = errors.Join(unread, foreignSecrets(dir, note))
	}
	return whole, words, unread, err
}

// foreignSecrets is secretsIn for a folder that a workload can write. The error says what was not read.
func foreignSecrets(dir string, note func([]byte)) error {
	root, err := os.OpenRoot(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	var unread error
	seen, secrets, left := 0, 0, int64(longestSecret)
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if seen++; seen > mostForeign {
			return fmt.Errorf("%s: of more than %d files some were not searched for secrets", dir, mostForeign)
		}
		if err == nil && (!d.Type().IsRegular() || !keeps.MatchString(d.Name())) {
			return nil
		}
		if secrets++; secrets > mostForeignOwn {
			return fmt.Errorf(
				"%s: of more than %d files that are secrets some were not searched for secrets",
				dir,
				mostForeignOwn,
			)
		}
		var text []byte
		if err == nil {
			text, err = foreignSecret(root, path, left)
		}
		if err == nil {
			left -= int64(len(text))
			note(text)
		} else if !os.IsNotExist(err) {
			unread = errors.Join(unread, err)
		}
		return nil
	})
	return errors.Join(unread, err)
}

func foreignSecret(root *os.Root, path string, most int64) ([]byte, error) {
	in, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := control.Regular(in, most); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(in, most))
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
