package site

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

//go:embed templates/*.html static/*
var files embed.FS

// templates are the parsed templates and the assets. The name of an asset contains a hash of its content.
type templates struct {
	byName map[string]*template.Template
	assets map[string]asset  // by name
	names  map[string]string // path by file name
}

type asset struct {
	body []byte
	kind string // media type
	etag string
}

var assetKinds = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// loadTemplates parses the templates. They can call the functions in more and those of templates.words.
func loadTemplates(more ...template.FuncMap) (*templates, error) {
	p := &templates{byName: map[string]*template.Template{}, assets: map[string]asset{}, names: map[string]string{}}
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
			return nil, fmt.Errorf("read assets: the extension of %s has no media type", f.Name())
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:8])
		name := strings.TrimSuffix(f.Name(), ext) + "." + hash + ext
		p.assets[name] = asset{body: body, kind: kind, etag: `"` + hash + `"`}
		p.names[f.Name()] = "/static/" + name
	}
	words := p.words()
	for _, m := range more {
		maps.Copy(words, m)
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
		t, err := template.New(name).Option("missingkey=error").Funcs(words).ParseFS(files, append(slices.Clone(parts), f)...)
		if err != nil {
			return nil, fmt.Errorf("read templates: %w", err)
		}
		p.byName[name] = t
	}
	return p, nil
}

func (t *templates) execute(b *bytes.Buffer, name string, f frame) error {
	page, ok := t.byName[name]
	if !ok {
		return fmt.Errorf("show page %s: no such template", name)
	}
	if err := page.ExecuteTemplate(b, "layout", f); err != nil {
		return fmt.Errorf("show page %s: %w", name, err)
	}
	return nil
}

// removeInvisible removes invisible characters from a page: control, format, private-use and tag characters, and
// fillers. Templates contain none, but names, titles and lessons may, where they could hide or reorder text.
func removeInvisible(page []byte) []byte {
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

func (t *templates) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := t.assets[r.PathValue("file")]
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
	_, _ = w.Write(a.body) // fails only if the client has disconnected
}

// words are the functions that every template can call.
func (t *templates) words() template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) (string, error) {
			served, ok := t.names[name]
			if !ok {
				return "", fmt.Errorf("no asset %s", name)
			}
			return served, nil
		},
		"verb":     func(v activity.Verb, n int) string { return words.Sentence(risk.Words(v, n)) },
		"source":   words.SourceName,
		"level":    words.LevelName,
		"lower":    func(s any) string { return strings.ToLower(fmt.Sprint(s)) },
		"words":    func(s any) string { return words.Sentence(words.Spaced.Replace(fmt.Sprint(s))) },
		"role":     words.RoleName,
		"day":      func(at time.Time) string { return at.Format("Mon 2 Jan 2006") },
		"short":    func(at time.Time) string { return at.Format("2 Jan, 15:04") },
		"moment":   func(at time.Time) string { return at.Format("Mon 2 Jan 2006, 15:04:05") },
		"clock":    func(at time.Time) string { return at.Format("2 Jan 15:04:05") },
		"exact":    func(at time.Time) string { return at.Format(time.RFC3339) },
		"score":    func(s risk.Score) string { return s.String() },
		"raw":      func(s risk.Score) (string, error) { b, err := s.MarshalJSON(); return string(b), err },
		"part":     func(micro int64) string { return words.Signed(micro) },
		"percent":  func(f float64) string { return fmt.Sprintf("%.0f %%", 100*f) },
		"signal":   func(l risk.Level) []words.SignalBar { return words.Signal(l) },
		"sentence": words.Sentence,
		"plural":   func(n int, one, many string) string { return words.Plural(n, one, many) },
		"module":   words.ModuleTitle,
		"duration": func(d time.Duration) string { return words.Span(d) },
	}
}
