// Package nearest finds the name that was meant by one that there is not.
package nearest

import (
	"fmt"
	"slices"
	"strings"
)

// To is the one of known that may have been meant by name, which is not among them; "" if none is near. A name of more
// than three letters with which one of known begins is near, and one of which few letters differ.
func To(name string, known []string) string {
	best, near := "", max(1, min(4, len(name)/2))+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if len(name) > 3 && strings.HasPrefix(k, name) {
			return k
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k), near); d < near {
			best, near = k, d
		}
	}
	return best
}

// Hint is the end of an error's text about name: "; did you mean X?", or "" if none of known is near.
func Hint(name string, known []string) string {
	if k := To(name, known); k != "" {
		return fmt.Sprintf("; did you mean %s?", k)
	}
	return ""
}

// distance is how many letters have to be added, taken away or changed to make b of a, or most if that is fewer.
func distance(a, b string, most int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) >= most || len(y)-len(x) >= most || len(x) > 200 {
		return most
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		before := row[0]
		row[0] = i + 1
		for j := range y {
			changed := before
			if x[i] != y[j] {
				changed++
			}
			before = row[j+1]
			row[j+1] = min(changed, row[j]+1, before+1)
		}
	}
	return min(row[len(y)], most)
}
