//go:build !race

package harness

// raceEnabled says that the stories run under the race detector, and so must
// the binary under test.
const raceEnabled = false
