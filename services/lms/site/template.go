package site

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
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

// pages are the templates and the assets, wherever they are read from.
type pages interface {
	// template is the one of a page, with all that it includes.
	template(name string) (*template.Template, error)
	// asset is what is served under a name below /static/; false: there is none.
	asset(served string) (asset, bool, error)
}

// templates are the parsed templates and the assets, each under a name that changes with its content.
type templates struct {
	byName map[string]*template.Template
	assets
}

// assets are static files, each under a name that changes with its content.
type assets struct {
	served map[string]asset  // by served name
	names  map[string]string // file name → path
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

// parts are the templates that every page may include.
var parts = []string{"templates/layout.html", "templates/parts.html", "templates/console_parts.html"}

// loadTemplates parses all templates. They may call the functions of more and those for words.
func loadTemplates(from fs.FS, more ...template.FuncMap) (*templates, error) {
	a, err := loadAssets(from)
	if err != nil {
		return nil, err
	}
	p := &templates{byName: map[string]*template.Template{}, assets: a}
	all, err := fs.Glob(from, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	for _, f := range all {
		if slices.Contains(parts, f) {
			continue
		}
		name := strings.TrimSuffix(path.Base(f), ".html")
		if p.byName[name], err = parsePage(from, name, a, more...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// loadAssets reads every static file of a kind that is served.
func loadAssets(from fs.FS) (assets, error) {
	a := assets{served: map[string]asset{}, names: map[string]string{}}
	list, err := fs.ReadDir(from, "static")
	if err != nil {
		return a, fmt.Errorf("read assets: %w", err)
	}
	for _, f := range list {
		ext := path.Ext(f.Name())
		kind, known := assetKinds[ext]
		if !known {
			continue // an editor's copy, where a folder is read
		}
		body, err := fs.ReadFile(from, "static/"+f.Name())
		if err != nil {
			return a, fmt.Errorf("read assets: %w", err)
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:8])
		name := strings.TrimSuffix(f.Name(), ext) + "." + hash + ext
		a.served[name] = asset{body: body, kind: kind, etag: `"` + hash + `"`}
		a.names[f.Name()] = "/static/" + name
	}
	return a, nil
}

// parsePage parses the template of one page.
func parsePage(from fs.FS, name string, a assets, more ...template.FuncMap) (*template.Template, error) {
	known := a.words()
	for _, m := range more {
		maps.Copy(known, m)
	}
	t, err := template.New(name).Option("missingkey=error").Funcs(known).
		ParseFS(from, append(slices.Clone(parts), "templates/"+name+".html")...)
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	return t, nil
}

func (p *templates) template(name string) (*template.Template, error) {
	t, ok := p.byName[name]
	if !ok {
		return nil, errors.New("no such template")
	}
	return t, nil
}

func (p *templates) asset(served string) (asset, bool, error) {
	a, ok := p.served[served]
	return a, ok, nil
}

func execute(p pages, b *bytes.Buffer, name string, f frame) error {
	t, err := p.template(name)
	if err == nil {
		err = t.ExecuteTemplate(b, "layout", f)
	}
	if err != nil {
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

func (s *Site) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok, err := s.pages.asset(r.PathValue("file"))
	if err != nil {
		s.cfg.Log.Error("serve static file", "error", err.Error())
		http.Error(w, "static files cannot be read; the log says why", http.StatusInternalServerError)
		return
	}
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	if a.etag != "" { // its name changes with its content
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		w.Header().Set("ETag", a.etag)
		if r.Header.Get("If-None-Match") == a.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	_, _ = w.Write(a.body) // fails only if the client has disconnected
}

// words are the functions that templates know.
func (a assets) words() template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) (string, error) {
			served, ok := a.names[name]
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
		"lateBy":   words.LateBy,
		"plural":   func(n int, one, many string) string { return words.Plural(n, one, many) },
		"module":   words.ModuleTitle,
		"duration": func(d time.Duration) string { return words.Span(d) },
		"note":     func(icon, text string) notice { return notice{icon, text} },
	}
}

// notice is what stands where a list is empty.
type notice struct {
	Icon string // by its name; "": none
	Text string
}
