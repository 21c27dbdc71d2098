package proc

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const statTail = " S 1 22 33 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 8833021 123 456\n"

func TestParseStat(t *testing.T) {
	for _, comm := range []string{"sh", "", "a b", "a) S 1 1 1 (b", "((", "))", "a\nb", "\xff", "1 (x) Z 0"} {
		got, err := parseStat([]byte("4711 (" + comm + ")" + statTail))
		want := Stat{PID: 4711, Comm: comm, State: 'S', PPID: 1, PGRP: 22, Session: 33, StartTime: 8833021}
		if err != nil || got != want {
			t.Errorf("comm %q: got %+v, %v", comm, got, err)
		}
	}
	for _, bad := range []string{
		"", "1", "1 (", "1 )(", "(sh)" + statTail, "x (sh)" + statTail, "1 (sh) S 1 2 3",
		"1 (sh) SS" + statTail[2:], strings.Replace("1 (sh)"+statTail, "8833021", "-1", 1), strings.Replace("1 (sh)"+statTail, " 22 ", " x ", 1),
	} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseFdinfoPID(t *testing.T) {
	for _, tt := range []struct {
		in   string
		pid  int
		gone bool
	}{
		{"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nPid:\t4711\nNSpid:\t4711\n", 4711, false},
		{"Pid:\t-1\n", 0, true},
		{"Pid:\t0\n", 0, true},
		{"Pid:\tx\n", 0, false},
		{"NSpid:\t4711\n", 0, false},
		{"", 0, false},
	} {
		pid, err := parseFdinfoPID([]byte(tt.in))
		if pid != tt.pid || (err == nil) != (pid != 0) || errors.Is(err, ErrNoProcess) != tt.gone {
			t.Errorf("%q: got %d, %v", tt.in, pid, err)
		}
	}
}

func TestParseNotice(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want notice
	}{
		{"READY", notice{kind: noticeReady}},
		{"READY ", notice{kind: noticeReady}},
		{"READY now", notice{}},
		{"ready", notice{}},
		{"", notice{}},
		{"ERROR", notice{kind: noticeRefused}},
		{`ERROR a\nb\\n\0`, notice{kind: noticeRefused, reason: "a\nb\\n\x00"}},
		{"PID 12 34", notice{kind: noticeNamed, id: Identity{12, 34}}},
		{"PID 0 34", notice{}},
		{"PID -1 34", notice{}},
		{"PID 12", notice{}},
		{"PID 99999999 1", notice{}},
	} {
		if got := parseNotice(tt.in); got != tt.want {
			t.Errorf("parseNotice(%q) = %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

// What a child says arrives in pieces of any size; a child that says too much is not read further.
func TestNoticeInPieces(t *testing.T) {
	const said = "hello\nPID 5 6\nERROR why\nREADY\n"
	for size := 1; size <= len(said); size++ {
		n := newNoticeReader(nil)
		for b := range slices.Chunk([]byte(said), size) {
			if n.feed(b) {
				break
			}
		}
		var r *RefusedError
		if err := n.refusal(5); !errors.As(err, &r) || r.Reason != "why" || n.who() != (Identity{5, 6}) {
			t.Errorf("pieces of %d: got %v, %v", size, err, n.who())
		}
	}
	n := newNoticeReader(nil)
	if n.feed(make([]byte, maxNotice)) || !n.feed(make([]byte, 1)) {
		t.Error("there is no limit")
	}
}

func TestParseStage(t *testing.T) {
	if u, n, err := parseStage("27 3"); u != 0o27 || n != 3 || err != nil {
		t.Errorf("got %o, %d, %v", u, n, err)
	}
	for _, bad := range []string{"", "22", "22 -1", "9 1", "1000 1", "22 99999", "22 1 "} {
		if _, _, err := parseStage(bad); err == nil {
			t.Errorf("parseStage(%q) succeeded", bad)
		}
	}
}

func TestSplitNUL(t *testing.T) {
	for in, want := range map[string][]string{
		"": nil, "\x00": nil, "a\x00": {"a"}, "a": {"a"}, "a\x00\x00b\x00": {"a", "", "b"},
	} {
		if got := splitNUL([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("splitNUL(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("4711 (sh)" + statTail))
	f.Add([]byte("4711 (a) b (c)" + statTail))
	f.Add([]byte("1 (\n) Z"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, b []byte) { parseStat(b) })
}

func FuzzParseNotice(f *testing.F) {
	f.Add("READY")
	f.Add(`ERROR a\nb`)
	f.Add("PID 1 2")
	f.Fuzz(func(t *testing.T, line string) {
		parseNotice(line)
		if got := reasonUnescaper.Replace(reasonEscaper.Replace(line)); got != line {
			t.Fatalf("escaped and back %q is %q", line, got)
		}
		if esc := reasonEscaper.Replace(line); strings.ContainsAny(esc, "\n\x00") {
			t.Fatalf("%q escaped is %q", line, esc)
		}
	})
}

func FuzzParseFdinfoPID(f *testing.F) {
	f.Add([]byte("pos:\t0\nPid:\t4711\n"))
	f.Add([]byte("Pid:\t-1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pid, err := parseFdinfoPID(b); (err == nil) != (pid > 0) {
			t.Fatalf("%q: %d, %v", b, pid, err)
		}
	})
}
