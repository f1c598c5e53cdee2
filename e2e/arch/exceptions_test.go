package arch

// Exceptions from the measures of the house, each with what it has. They may only shrink.
var (
	tooLongFiles = map[string]int{}

	tooWideFiles = map[string]int{}

	manyMethods = map[string]int{}
)
