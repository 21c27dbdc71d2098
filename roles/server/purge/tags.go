package purge

import (
	"bytes"

	"trafficd/roles/server/header"
)

// Tagged reports whether has is true of any tag of the response that a stored head of these field
// lines belongs to. It allocates nothing.
func Tagged(lines []byte, has func(tag []byte) bool) bool {
	for len(lines) > 0 {
		var line []byte
		if i := bytes.IndexByte(lines, '\n'); i >= 0 {
			line, lines = lines[:i], lines[i+1:]
		} else {
			line, lines = lines, nil
		}
		// Both names are rare, and their lengths rule out nearly everything else.
		colon := bytes.IndexByte(line, ':')
		if colon != len(surrogateKey) && colon != len(cacheTag) {
			continue
		}
		id := header.Lookup(line[:colon])
		if id != header.SurrogateKey && id != header.CacheTag {
			continue
		}
		if anyTag(id, line[colon+1:], has) {
			return true
		}
	}
	return false
}

const (
	surrogateKey = "Surrogate-Key"
	cacheTag     = "Cache-Tag"
)

// anyTag reports whether has is true of any tag in the value of a field.
func anyTag(id header.ID, value []byte, has func(tag []byte) bool) bool {
	for len(value) > 0 {
		end := bytes.IndexByte(value, ',')
		if id == header.SurrogateKey {
			end = bytes.IndexAny(value, " \t")
		}
		tag := value
		if end >= 0 {
			tag, value = value[:end], value[end+1:]
		} else {
			value = nil
		}
		if tag = trim(tag); len(tag) > 0 && has(tag) {
			return true
		}
	}
	return false
}

// trim also cuts the carriage return of a stored line.
func trim(b []byte) []byte { return bytes.Trim(b, " \t\r") }
