package site

import (
	"cmp"
	"slices"
)

// Choice is one option of a select element.
type Choice struct {
	Value, Name string
	Chosen      bool
}

// Choices are options in the order of their names. The keys of names are the values.
func Choices(names map[string]string, chosen string) []Choice {
	list := make([]Choice, 0, len(names))
	for id, name := range names {
		list = append(list, Choice{Value: id, Name: name, Chosen: id == chosen})
	}
	slices.SortFunc(list, func(a, b Choice) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
