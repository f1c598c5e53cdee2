package training

import (
	"strings"

	"example.org/security-training/services/risk"
)

// Anonymise is a detail without names, addresses or accounts of anybody in the roster, in at most 500 bytes.
func Anonymise(detail string, people []risk.Standing) string {
	detail = strings.ToValidUTF8(detail, "")
	low := strings.ToLower(detail)
	if len(low) != len(detail) {
		return "" // a script whose letters change their length: better nothing than an offset that is wrong
	}
	hide := func(name string) {
		name = strings.ToLower(name)
		if len(name) < 3 {
			return
		}
		for {
			i := strings.Index(low, name)
			if i < 0 {
				return
			}
			const mark = "[person]"
			detail = detail[:i] + mark + detail[i+len(name):]
			low = low[:i] + strings.Repeat("\x00", len(mark)) + low[i+len(name):]
		}
	}
	for _, p := range people {
		hide(p.Email)
		for _, account := range p.Accounts {
			_, name, _ := strings.Cut(account, ":")
			hide(name)
		}
		hide(p.Name)
		hide(p.ID)
		for _, word := range strings.Fields(p.Name) {
			if len(word) >= 4 && strings.Contains(low, strings.ToLower(word)) {
				hide(word)
			}
		}
	}
	for len(detail) > 500 {
		detail = strings.ToValidUTF8(detail[:500], "")
	}
	return detail
}
