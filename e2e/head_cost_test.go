package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

// Heads of nearly the greatest size, made to be expensive: what their lists name is held against other fields or other
// lists, and that must not cost the one times the other. What a head costs is the least time that the server was running in one of
// many turns, beside that of one of this size that says nothing in particular.

// full repeats what makes a list until the head is nearly as large as it may be.
func full(name, member string, rest int) string {
	return name + ": " + strings.TrimSuffix(strings.Repeat(member, (31<<10-rest)/len(member)), ",") + "\r\n"
}

// distinct is a list of members that all differ.
func distinct(name, format string, rest int) string {
	var b strings.Builder
	b.WriteString(name + ": ")
	for i := 0; b.Len() < 31<<10-rest; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, format, i)
	}
	return b.String() + "\r\n"
}

// unknown are so many fields that nobody knows.
func unknown(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "y%d: y\r\n", i)
	}
	return b.String()
}

type costly struct {
	name   string
	target string // "": of its own, so that it is a miss
	fields string // of the request
	reply  string // fields of the response; or its status
}

func costlyHeads() []costly {
	fields := unknown(110)
	n := len(fields) + 200
	return []costly{
		{"64 options", "", "Connection: " + strings.TrimSuffix(strings.Repeat("z,", 64), ",") + "\r\n" + fields, ""},
		{"15,000 options", "", full("Connection", "z,", n) + fields, ""},
		{"protocols", "", "Connection: upgrade\r\n" + distinct("Upgrade", "%x", n) + fields, ""},
		{"protocols, of which the origin takes all", "", "Connection: upgrade\r\n" + distinct("Upgrade", "%x", n) + fields, "101"},
		{"directives", "", full("Cache-Control", "x,", n) + fields, ""},
		{"directives that name fields", "", full("Cache-Control", `no-cache="z",`, n) + fields, ""},
		{"one directive that names fields", "", `Cache-Control: no-cache="` + strings.Repeat("z,", 14000) + "\"\r\n" + fields, ""},
		{"commas", "", full("Cache-Control", ",", n) + fields, ""},
		{"proxies", "", full("Via", "1.1 a,", n) + fields, ""},
		{"addresses", "", full("X-Forwarded-For", "1,", n) + fields, ""},
		{"nodes", "", full("Forwarded", "for=1,", n) + fields, ""},
		{"nodes in one", "", full("Forwarded", "a;", n) + fields, ""},
		{"TE", "", full("TE", "z,", n) + fields, ""},
		{"Trailer", "", full("Trailer", "z,", n) + fields, ""},
		{"ranges", "", full("Range", "bytes=0-0,", n) + fields, ""},
		{"ranges of nothing", "", "Range: bytes=" + strings.Repeat(",", 28<<10) + "0-0\r\n" + fields, ""},
		{"tags", "/hit", full("If-None-Match", `"",`, n) + fields, ""},
		{"tags against a long one", "/long", full("If-None-Match", `"",`, n) + fields, ""},
		{"ranges of a hit", "/hit", "Range: bytes=" + strings.Repeat(",", 28<<10) + "0-0\r\n" + fields, ""},
		{"encodings", "/varies", full("Accept-Encoding", "z,", n) + fields, ""},
		{"blanks between encodings", "/varies", "Accept-Encoding: " + strings.Repeat(",", 28<<10) + "zz\r\n" + fields, ""},
		{"languages", "/varies", full("Accept-Language", "z,", n) + fields, ""},
		{"fields of a Vary", "/varies", strings.Repeat("V1: "+strings.Repeat(",", 240)+"\r\n", 120), ""},
		{"dots", "/" + strings.Repeat("../", 2600), fields, ""},
		{"slashes", "/" + strings.Repeat("/", 7900), fields, ""},
		{"slashes and dots", "/" + strings.Repeat("/", 3900) + strings.Repeat("..//", 900), fields, ""},
		{"encoded dots", "/" + strings.Repeat("%2e%2e/", 1100), fields, ""},
		{"cookies", "", full("Cookie", "a=b;", n) + fields, ""},

		{"response: directives", "", "", full("Cache-Control", "x,", n) + fields},
		{"response: directives that name fields", "", "", full("Cache-Control", `no-cache="z",`, n) + "Cache-Control: max-age=60\r\nETag: \"a\"\r\n" + fields},
		{"response: a directive that names many", "", "", "ETag: \"a\"\r\nCache-Control: max-age=60, no-cache=\"" + strings.TrimSuffix(strings.Repeat("z,", 14000), ",") + "\"\r\n" + fields},
		{"response: directives of a target", "", "", "ETag: \"a\"\r\nCDN-Cache-Control: max-age=60" + strings.Repeat(`,no-cache="z"`, 2000) + "\r\n" + fields},
		{"response: Vary", "", "", full("Vary", "z,", n) + "Cache-Control: max-age=60\r\n" + fields},
		{"response: tags", "", "", full("Surrogate-Key", "z ", n) + "Cache-Control: max-age=60\r\n" + fields},
		{"response: options", "", "", full("Connection", "z,", n) + fields},
		{"response: options, malformed", "", "", full("Connection", "z,a b,", n) + fields},
		{"response: 64 options", "", "", "Cache-Control: max-age=60\r\nConnection: " + strings.TrimSuffix(strings.Repeat("z,", 64), ",") + "\r\n" + fields},
		{"response: cookies", "", "", strings.Repeat("Set-Cookie: "+strings.Repeat("a=b;", 50)+"\r\n", 110) + "Cache-Control: max-age=60\r\n"},
	}
}

// costs is an origin for costly heads: what it answers with goes by the target.
func costs(heads []costly) func(r *harness.RawRequest) harness.RawAnswer {
	const stored = "Cache-Control: max-age=600\r\n"
	return func(r *harness.RawRequest) harness.RawAnswer {
		fields, i := "Cache-Control: no-store\r\n", 0
		switch r.Target {
		case "/hit":
			fields = stored + "ETag: \"a\"\r\n"
		case "/long":
			fields = stored + "ETag: \"" + strings.Repeat("a", 20<<10) + "\"\r\n"
		case "/varies":
			fields = stored + "Vary: Accept-Encoding, Accept-Language, V1, V2\r\n"
		default:
			if _, err := fmt.Sscanf(r.Target, "/head%d-", &i); err != nil || heads[i].reply == "" {
				break
			}
			if heads[i].reply == "101" {
				return harness.RawAnswer{Text: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: " + r.Get("Upgrade") + "\r\n\r\n"}
			}
			fields = heads[i].reply
		}
		return harness.RawAnswer{Text: "HTTP/1.1 200 OK\r\n" + fields + "Content-Length: 5\r\n\r\nhello"}
	}
}

func TestAHeadCostsWhatItsLengthDoes(t *testing.T) {
	heads := costlyHeads()
	x := full("X", "x", 3000) + unknown(110)
	heads = append(heads, costly{"nothing in particular", "", x, x})
	o := harness.NewRawOrigin(t, costs(heads))
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	c := harness.NewClient(t, p.Addr)
	for i := range 40 {
		c.Get("/varies", fmt.Sprintf("Accept-Encoding: e%d", i), fmt.Sprintf("V1: a%d", i)).ExpectStatus(200)
	}
	server := p.PID(harness.Server)
	serial := 0
	turn := func(i int) time.Duration {
		target := heads[i].target
		if serial++; target == "" {
			target = fmt.Sprintf("/head%d-%d", i, serial)
		}
		conn := c.Dial()
		defer conn.Close()
		before := harness.CPUTime(t, server)
		conn.Send("GET " + target + " HTTP/1.1\r\nHost: h.test\r\n" + heads[i].fields + "\r\n").Read("GET")
		return harness.CPUTime(t, server) - before
	}
	most := time.Duration(5) // times as much: a byte of a list costs more than one that is only copied
	if harness.Race() {
		most = 15 // since the race detector looks at each byte of a list, too, and at none that is copied
	}
	plain := turn(len(heads) - 1)
	for range 20 {
		plain = min(plain, turn(len(heads)-1))
	}
	for i := range heads {
		took := turn(i)
		for n := 0; took > most*plain && n < 30; n++ {
			took, plain = min(took, turn(i)), min(plain, turn(len(heads)-1))
		}
		if took > most*plain {
			t.Errorf("%s: %v, a head with nothing in particular %v", heads[i].name, took, plain)
		}
	}
}
