package config

import (
	"fmt"
	"strings"
)

// unknownKey says that key is none of those valid here, and what the writer may have meant: the nearest key of this
// place, or the place where such a key belongs.
func unknownKey(key string, valid []string, here string) string {
	msg := fmt.Sprintf("unknown key %q", clip(key))
	if owners := owners(key, here); owners != "" {
		return msg + " (belongs under " + owners + ")"
	}
	if section, leaf, ok := strings.Cut(key, "."); ok && here == "" && lookup(key) != nil {
		return fmt.Sprintf("%s (write %s: under %s:)", msg, leaf, section)
	}
	if near := nearest(key, valid); near != "" {
		return fmt.Sprintf("%s (did you mean %q?)", msg, near)
	}
	return msg
}

// owners lists the sections, other than here, that have such a key.
func owners(key, here string) string {
	var list []string
	for i := range table {
		section, leaf := table[i].split()
		if leaf == key && section != here && section != "" {
			list = append(list, fmt.Sprintf("%q", section))
		}
	}
	if (key == "prefix" || key == "origin") && here != "map" && len(list) == 0 {
		list = append(list, `an entry of "map"`)
	}
	if len(list) == 0 && here != "" && here != "map" {
		if s := lookup(key); s != nil {
			return "no section: write it at the left margin"
		}
	}
	return strings.Join(list, " or ")
}

// split gives the section ("" at the top level) and the key within it.
func (s *Setting) split() (section, leaf string) {
	if section, leaf, ok := strings.Cut(s.Name, "."); ok {
		return section, leaf
	}
	return "", s.Name
}

// keys lists what is valid in a section; "" is the top level, which also has the sections.
func keys(section string) []string {
	var list []string
	seen := map[string]bool{}
	for i := range table {
		sec, leaf := table[i].split()
		if sec != section {
			if section != "" || seen[sec] {
				continue
			}
			leaf = sec
			seen[sec] = true
		}
		list = append(list, leaf)
	}
	return list
}

// nearest is the candidate with the least edit distance to word, if that is small enough for a slip of the finger;
// the first of equals.
func nearest(word string, candidates []string) string {
	if len(word) > 64 {
		return ""
	}
	best, dist := "", 3
	for _, c := range candidates {
		most := max(1, min(len(c), len(word))/3)
		if d := distance(strings.ToLower(word), c); d <= most && d < dist {
			best, dist = c, d
		}
	}
	return best
}

// distance is the edit distance with transposition of neighbours (optimal string alignment).
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
