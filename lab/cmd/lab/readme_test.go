package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// documents are the documents that print commands for readers.
var documents = []string{
	"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "DEPLOYMENT_ARCHITECTURE.md",
	"SYNTHETIC_DATA_SPEC.md", "LESSONS_LEARNED.md",
}

var (
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	labCalled = regexp.MustCompile(
		`(?:^|[(;&|"]\s*|[A-Z]=\S*\s+)(?:(?:\./)?(?:bin/)?lab|go run \./lab/cmd/lab)((?: +[^\s;&|<>()"'#]+|\s+"[^"]*")*)`,
	)
	inBin     = regexp.MustCompile(`\bbin/([a-z][a-z-]*)`)
	makeCall  = regexp.MustCompile(`^make((?: +[^\s#|;&]+)+)`)
	lowerWord = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// codeOf returns the code of a document: code spans, and the lines of code blocks.
func codeOf(text string) []string {
	var found []string
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced:
			line, _, _ = strings.Cut(line, " #")
			found = append(found, strings.TrimSpace(line))
		default:
			for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
				found = append(found, m[1])
			}
		}
	}
	return found
}

// faultOf says what is wrong with a lab command, or returns nil. A word in capitals, or …, is a placeholder.
func faultOf(words []string) error {
	if i := slices.Index(words, "…"); i >= 0 {
		words = words[:i]
	}
	if len(words) == 0 {
		return nil
	}
	root := command()
	root.InitDefaultHelpCmd()
	c, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if c == root && !strings.HasPrefix(words[0], "-") {
		return fmt.Errorf("there is no verb %q", words[0])
	}
	if c.HasSubCommands() && len(rest) > 0 && lowerWord.MatchString(rest[0]) {
		return fmt.Errorf("%s has no verb %q", c.CommandPath(), rest[0])
	}
	return parsed(c, rest)
}

// parsed checks that c has the flags and takes as many arguments.
func parsed(c *cobra.Command, rest []string) error {
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	var args []string
	for i := 0; i < len(rest); i++ {
		name, _, valued := strings.Cut(rest[i], "=")
		switch {
		case strings.HasPrefix(name, "--"):
			f := c.Flag(name[2:])
			if f == nil {
				return fmt.Errorf("%s has no flag %s", c.CommandPath(), name)
			}
			if !valued && f.NoOptDefVal == "" {
				i++
			}
		case strings.HasPrefix(name, "-") && len(name) > 1:
			f := c.Flags().ShorthandLookup(name[1:2])
			if f == nil {
				f = c.InheritedFlags().ShorthandLookup(name[1:2])
			}
			if f == nil {
				return fmt.Errorf("%s has no flag %s", c.CommandPath(), name)
			}
			if len(name) == 2 && f.NoOptDefVal == "" {
				i++
			}
		default:
			args = append(args, rest[i])
		}
	}
	if len(args) > 0 && c.Args != nil { // a sentence may mention a verb without its arguments
		return c.Args(c, args)
	}
	return nil
}

// Every command of lab and of make in a document names verbs, flags and targets that exist. e2e runs the commands of
// README.
func TestEveryDocumentPrintsCommandsThatThereAre(t *testing.T) {
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{"lab"}
	for _, pattern := range []string{"../../../services/cmd/*", "../../../synth/cmd/*", "../*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			programs = append(programs, filepath.Base(d))
		}
	}
	checked := 0
	for _, name := range documents {
		text, err := os.ReadFile("../../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range codeOf(string(text)) {
			for _, m := range labCalled.FindAllStringSubmatch(code, -1) {
				checked++
				if err := faultOf(strings.Fields(m[1])); err != nil {
					t.Errorf("%s prints %q: %v", name, code, err)
				}
			}
			for _, m := range inBin.FindAllStringSubmatch(code, -1) {
				if !slices.Contains(programs, m[1]) && name == "README.md" {
					t.Errorf("%s prints %q: no program is called %s", name, code, m[1])
				}
			}
			if m := makeCall.FindStringSubmatch(code); m != nil {
				for _, target := range strings.Fields(m[1]) {
					if lowerWord.MatchString(target) && !strings.Contains("\n"+string(makefile), "\n"+target+":") {
						t.Errorf("%s prints %q: there is no target %s", name, code, target)
					}
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("%d commands were found: this proves little", checked)
	}
}

// The check of documents finds a wrong command in any form.
func TestABrokenCommandOfADocumentIsSeen(t *testing.T) {
	for _, good := range []string{
		"status -o env", "people --level HIGH -o json", "logs llm-gateway -f", "certificate issue PERSON", "up …",
		"audit rescore elisabeth.reese --at 2026-10-01T10:04:00Z --as-of 1000", "", "--version", "help up", "audit",
	} {
		if err := faultOf(strings.Fields(good)); err != nil {
			t.Errorf("lab %s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"statsu", "status --outptu env", "people -x", "certificate isue PERSON", "audit verfy", "open a b",
		"completions bash",
	} {
		if err := faultOf(strings.Fields(bad)); err == nil {
			t.Errorf("lab %s is taken for a command", bad)
		}
	}
	for code, want := range map[string]string{
		"source <(bin/lab completions bash)":             " completions bash",
		`eval "$(lab status -o env)"`:                    " status -o env",
		"LAB_SPIRE_DIR=/opt bin/lab up --name second":    " up --name second",
		"cd x && bin/lab people -o ids > class.txt":      " people -o ids",
		"go run ./lab/cmd/lab down --all # and the rest": " down --all",
	} {
		if m := labCalled.FindStringSubmatch(code); m == nil || m[1] != want {
			t.Errorf("%q: found %q, want %q", code, m, want)
		}
	}
}
