//go:build race || invariants

package buffer

// mangle overwrites the beginning of a page that was given back, so that a
// reader that comes too late reads nonsense and is found out.
func mangle(p []byte) {
	const dead = 0xdb
	n := min(len(p), 512)
	for i := range n {
		p[i] = dead
	}
}
