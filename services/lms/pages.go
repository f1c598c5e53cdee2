package lms

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/risk"
)

//go:embed templates/*.html static/*
var files embed.FS

// pages are the parsed templates and the assets, each under a name that changes with its content.
type pages struct {
	byName map[string]*template.Template
	assets map[string]asset  // by served name
	names  map[string]string // file name → served name
}

type asset struct {
	body []byte
	kind string // media type
	etag string
}

var assetKinds = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

func loadPages() (*pages, error) {
	p := &pages{byName: map[string]*template.Template{}, assets: map[string]asset{}, names: map[string]string{}}
	list, err := fs.ReadDir(files, "static")
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	for _, f := range list {
		body, err := files.ReadFile("static/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("read assets: %w", err)
		}
		ext := path.Ext(f.Name())
		kind, known := assetKinds[ext]
		if !known {
			return nil, fmt.Errorf("read assets: %s is of no kind that is served", f.Name())
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:8])
		name := strings.TrimSuffix(f.Name(), ext) + "." + hash + ext
		p.assets[name] = asset{body: body, kind: kind, etag: `"` + hash + `"`}
		p.names[f.Name()] = "/static/" + name
	}
	parts := []string{"templates/layout.html", "templates/parts.html", "templates/console_parts.html"}
	all, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	for _, f := range all {
		if slices.Contains(parts, f) {
			continue
		}
		name := strings.TrimSuffix(path.Base(f), ".html")
		t, err := template.New(name).Option("missingkey=error").Funcs(p.words()).ParseFS(files, append(slices.Clone(parts), f)...)
		if err != nil {
			return nil, fmt.Errorf("read templates: %w", err)
		}
		p.byName[name] = t
	}
	return p, nil
}

func (p *pages) execute(b *bytes.Buffer, name string, f frame) error {
	t, ok := p.byName[name]
	if !ok {
		return fmt.Errorf("show page %s: no such template", name)
	}
	if err := t.ExecuteTemplate(b, "layout", f); err != nil {
		return fmt.Errorf("show page %s: %w", name, err)
	}
	return nil
}

// plainly is a page without what nobody can see: controls, format characters that hide or turn text, private and tag
// characters, fillers. Templates have none; whoever wrote a name, a title or a lesson may have.
func plainly(page []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\n' || r >= ' ' && r < 0x7F:
			return r
		case r == '\t':
			return ' '
		case lesson.Invisible(r):
			return -1
		}
		return r
	}, page)
}

func (p *pages) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := p.assets[r.PathValue("file")]
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("ETag", a.etag)
	w.Header().Set("Content-Type", a.kind)
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(a.body) // a reader who has gone needs nothing
}

// words are the functions that templates know.
func (p *pages) words() template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) (string, error) {
			served, ok := p.names[name]
			if !ok {
				return "", fmt.Errorf("no asset %s", name)
			}
			return served, nil
		},
		"verb":       func(v activity.Verb, n int) string { return sentence(risk.Words(v, n)) },
		"source":     sourceName,
		"level":      levelName,
		"lower":      func(s any) string { return strings.ToLower(fmt.Sprint(s)) },
		"words":      func(s any) string { return sentence(spaced.Replace(fmt.Sprint(s))) },
		"role":       roleName,
		"day":        func(t time.Time) string { return t.Format("Mon 2 Jan 2006") },
		"short":      func(t time.Time) string { return t.Format("2 Jan, 15:04") },
		"moment":     func(t time.Time) string { return t.Format("Mon 2 Jan 2006, 15:04:05") },
		"clock":      func(t time.Time) string { return t.Format("2 Jan 15:04:05") },
		"exact":      func(t time.Time) string { return t.Format(time.RFC3339) },
		"score":      func(s risk.Score) string { return s.String() },
		"raw":        func(s risk.Score) (string, error) { b, err := s.MarshalJSON(); return string(b), err },
		"part":       func(micro int64) string { return signed(micro) },
		"percent":    func(f float64) string { return fmt.Sprintf("%.0f %%", 100*f) },
		"signal":     func(l risk.Level) []signalBar { return signal(l) },
		"sentence":   sentence,
		"plural":     func(n int, one, many string) string { return plural(n, one, many) },
		"module":     moduleTitle,
		"duration":   func(d time.Duration) string { return span(d) },
		"asked":      asked,
		"consolebar": func(title string, at consolePage) consoleBar { return consoleBar{title, at.frame()} },
		"parts":      factsOfLine,
	}
}

// spaced makes words of a code.
var spaced = strings.NewReplacer("_", " ", ".", " ")

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// sentence begins with a capital letter.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// signed is a part of a score, in millionths, with its sign and three decimals.
func signed(micro int64) string {
	s := fmt.Sprintf("%+.3f", float64(micro)/1e6)
	return strings.Replace(s, "-", "−", 1)
}

// groupNames are the four groups of sources, in the order of the model.
var groupNames = [...]string{"Code", "Access", "Alerts", "Training"}

func sourceName(s activity.Source) string {
	switch s {
	case activity.Git:
		return groupNames[0]
	case activity.IAM:
		return groupNames[1]
	case activity.SIEM:
		return groupNames[2]
	}
	return groupNames[3]
}

func levelName(l risk.Level) string { return sentence(strings.ToLower(string(l))) }

func roleName(r risk.Role) string {
	switch r {
	case risk.DevOpsEngineer:
		return "DevOps engineer"
	case risk.DevSecOpsEngineer:
		return "DevSecOps engineer"
	case risk.SRE:
		return "Site reliability engineer"
	}
	return sentence(strings.ReplaceAll(string(r), "_", " "))
}

func moduleTitle(id string) string {
	if m, ok := risk.ModuleByID(id); ok {
		return m.Title
	}
	if id == drillReported {
		return "Report a drill's mail"
	}
	return id
}

// span is a duration in the largest unit that fits.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(math.Round(d.Hours()/24)))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(math.Round(d.Hours())))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(math.Round(d.Minutes())))
	}
	return plural(int(math.Ceil(d.Seconds())), "second", "seconds")
}

// signalBar is one of four bars that show a level without colour.
type signalBar struct {
	X, Y, H int
	Class   string
}

func signal(l risk.Level) []signalBar {
	bars := make([]signalBar, 4)
	for i := range bars {
		h := 4 + 3*i
		bars[i] = signalBar{X: 4 * i, Y: 13 - h, H: h, Class: "off"}
		if i <= l.Rank() {
			bars[i].Class = "on"
		}
	}
	return bars
}
