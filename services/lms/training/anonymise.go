package training

import (
	"strings"

	"example.org/security-training/services/risk"
)

// Anonymise replaces the names, email addresses, accounts and ids of people in a detail by "[person]". The result is at
// most 500 bytes.
func Anonymise(detail string, people []risk.Standing) string {
	detail = strings.ToValidUTF8(detail, "")
	low := strings.ToLower(detail)
	if len(low) != len(detail) {
		return "" // lower case changed the length, so that offsets in low are not offsets in detail
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
