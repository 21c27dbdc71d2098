package eventloop

import "testing"

// Each duration is in the first class whose bound it does not exceed.
func TestClass(t *testing.T) {
	values := []uint64{0, 1, 999, 1<<63 + 1}
	for _, b := range Bounds {
		values = append(values, b-1, b, b+1)
	}
	for n := range 64 {
		values = append(values, 1<<n-1, 1<<n, 1<<n+1)
	}
	for _, v := range values {
		want := 0
		for want < Buckets-1 && v > Bounds[want] {
			want++
		}
		if got := class(v); got != want {
			t.Errorf("%d ns: class %d, want %d", v, got, want)
		}
	}
}
