package freshness

// EachLine calls f with the name and the whole line of each field line of a head block.
func EachLine(block []byte, f func(name, line []byte)) { eachLine(block, f) }
