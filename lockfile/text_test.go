package lockfile

import (
	"math"
	"strings"
	"testing"
)

const someBoot = "2f1c9a0e-7d34-4a11-9c3b-0a7e5d1b2c3d"

func TestParseText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want text
	}{
		{"", text{}},
		{"\n", text{}},
		{"4711\n", text{pid: 4711}},
		{"4711", text{pid: 4711}},
		{" 4711 \r\n", text{pid: 4711}},
		{"4711\n123 " + someBoot + "\n", text{4711, 123, someBoot}},
		{"4711\n0 -\n", text{pid: 4711}},
		{"4711\n123 -\n", text{pid: 4711, startTime: 123}},
		{"4711\n123 " + someBoot, text{pid: 4711}}, // torn
		{"4711\n-3 " + someBoot + "\n", text{pid: 4711}},
		{"4711\n123\n", text{pid: 4711}},
		{"4711\n123 <boot>\n", text{pid: 4711}},
		{"4711\n99999999999999999999999 -\n", text{pid: 4711}},
		{"0\n", text{}},
		{"-4711\n", text{}},
		{"+1\n", text{}},
		{"4194304\n", text{pid: 4194304}},
		{"4194305\n", text{}},
		{"47 11\n", text{}},
		{"0x10\n", text{}},
		{strings.Repeat("1", maxText+1), text{}},
		{"12\n" + strings.Repeat("1", maxText), text{}},
	} {
		if got := parseText([]byte(tt.in)); got != tt.want {
			t.Errorf("parseText(%q) = %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	for _, want := range []text{{1, 0, ""}, {4711, 123, someBoot}, {1 << 22, math.MaxUint64, "-a-"}, {7, 9, ""}} {
		if got := parseText(want.bytes()); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestParseStartTime(t *testing.T) {
	tail := " S 1 2 3" + strings.Repeat(" 0", 15) + " 8833021 0 0\n" // fields 3 to 24
	for _, tt := range []struct {
		in   string
		want uint64
	}{
		{"12 (sh)" + tail, 8833021},
		{"12 (a) b) (c\n)" + tail, 8833021},
		{"12 (sh) S 1", 0},
		{"", 0},
		{"12 (sh", 0},
		{"12 (sh) S 1 2 3" + strings.Repeat(" 0", 15) + " x 0", 0},
	} {
		if got := parseStartTime([]byte(tt.in)); got != tt.want {
			t.Errorf("parseStartTime(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("4711\n123 " + someBoot + "\n"))
	f.Add([]byte("4711\n0 -\n"))
	f.Add([]byte("-1\n"))
	f.Add([]byte("\x00\xff\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := parseText(b)
		if got.pid < 0 || got.pid > 1<<22 || got.pid == 0 && got != (text{}) {
			t.Fatalf("parseText(%q) = %+v", b, got)
		}
		if got.pid != 0 && parseText(got.bytes()) != got {
			t.Fatalf("%+v is not what it writes", got)
		}
	})
}

func FuzzParseStartTime(f *testing.F) {
	f.Add([]byte("12 (sh) S 1 2 3 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 8833021 0 0\n"))
	f.Add([]byte("12 (a) b) S"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) { parseStartTime(b) })
}
