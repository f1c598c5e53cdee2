package scenario

import (
	_ "embed"
	"strings"
	"sync"
)

//go:embed attack.txt
var attackFile string

// techniques are the names of ATT&CK's techniques by id, and the ids that replaced revoked ones.
var techniques = sync.OnceValue(func() (t struct{ names, moved map[string]string }) {
	t.names, t.moved = map[string]string{}, map[string]string{}
	for line := range strings.Lines(attackFile) {
		id, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || id == "#" {
			continue
		}
		if to, moved := strings.CutPrefix(rest, "= "); moved {
			t.moved[id] = to
		} else {
			t.names[id] = rest
		}
	}
	return t
})

// Technique is the name of a technique of MITRE ATT&CK for Enterprise by its id, such as T1552.001; "" if the release
// in this program has none.
func Technique(id string) string { return techniques().names[id] }
