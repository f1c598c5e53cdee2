package arch

// These are the exceptions from the limits, each with its present size. The lists may only shrink.
var (
	tooLongFiles  = map[string]int{}
	tooWideFiles  = map[string]int{}
	longFunctions = map[string]int{}
	manyMethods   = map[string]int{}
)
