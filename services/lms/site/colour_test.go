package site

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestColoursHaveContrast computes the contrast ratio of WCAG 2.2 for each pair of text and background, in light and
// dark. Text needs 4.5.
func TestColoursHaveContrast(t *testing.T) {
	css, err := files.ReadFile("static/app.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, _ := strings.Cut(string(css), "@media (prefers-color-scheme: dark)")
	dark, _, _ = strings.Cut(dark, "--shadow: none")
	colour := regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{3,6});`)
	read := func(text string, into map[string]string) map[string]string {
		for _, m := range colour.FindAllStringSubmatch(text, -1) {
			if len(m[2]) == 3 {
				m[2] = strings.Join([]string{m[2][:1], m[2][:1], m[2][1:2], m[2][1:2], m[2][2:], m[2][2:]}, "")
			}
			into[m[1]] = m[2]
		}
		return into
	}
	luminance := func(hexes string) float64 {
		var sum float64
		for i, weight := range []float64{.2126, .7152, .0722} {
			v, err := strconv.ParseUint(hexes[2*i:2*i+2], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			c := float64(v) / 255
			if c <= .04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+.055)/1.055, 2.4)
			}
			sum += weight * c
		}
		return sum
	}
	first := read(light, map[string]string{})
	second := map[string]string{}
	for k, v := range first {
		second[k] = v
	}
	const pairs = `ink/bg ink/card ink/sunk soft/bg soft/card soft/sunk accent/card accent/bg accent/accent-soft
		ink/accent-soft on-accent/button on-accent/button-over low/low-soft medium/medium-soft high/high-soft
		critical/critical-soft good/card bad/card rail-ink/rail rail-soft/rail rail-ink/rail-here`
	for look, colours := range map[string]map[string]string{"light": first, "dark": read(dark, second)} {
		for _, pair := range strings.Fields(pairs) {
			front, back, _ := strings.Cut(pair, "/")
			a, b := luminance(colours[front]), luminance(colours[back])
			if ratio := (max(a, b) + .05) / (min(a, b) + .05); ratio < 4.5 {
				t.Errorf("%s: %s on %s has a contrast of %.2f, want 4.5", look, front, back, ratio)
			}
		}
	}
}
