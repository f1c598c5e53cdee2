package audit

import "unicode/utf8"

// clip is s, or as much of it as fits into most bytes with a mark behind it: whole characters.
func clip(s string, most int) string {
	const mark = "…"
	if len(s) <= most {
		return s
	}
	cut := most - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}
