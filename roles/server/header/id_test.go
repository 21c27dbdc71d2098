package header

import (
	"strings"
	"testing"
)

func TestLookupKnowsEveryNameInAnyCase(t *testing.T) {
	for id := ID(1); id < NumIDs; id++ {
		name := id.String()
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := Lookup([]byte(spelling)); got != id {
				t.Errorf("Lookup(%q) = %d, want %d", spelling, got, id)
			}
		}
	}
}

func TestLookupIsExact(t *testing.T) {
	for id := ID(1); id < NumIDs; id++ {
		name := []byte(id.String())
		for i := range name {
			for c := range 256 {
				changed := append([]byte(nil), name...)
				changed[i] = byte(c)
				want := Unknown
				for other := ID(1); other < NumIDs; other++ {
					if strings.EqualFold(string(changed), other.String()) && c < 0x80 {
						want = other
					}
				}
				if got := Lookup(changed); got != want {
					t.Fatalf("Lookup(%q) = %v, want %v", changed, got, want)
				}
			}
		}
	}
	for _, name := range []string{"", "a", "X-Unknown", "Hosts", "hos", strings.Repeat("a", 40)} {
		if got := Lookup([]byte(name)); got != Unknown {
			t.Errorf("Lookup(%q) = %v, want Unknown", name, got)
		}
	}
}
