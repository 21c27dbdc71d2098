package freshness

import (
	"strings"
	"testing"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/http1"
)

// Times of the tests: the response arrives at noon, one second after the request.
const (
	noon     = int64(784111777) * second // Sun, 06 Nov 1994 08:49:37 GMT
	noonDate = "Sun, 06 Nov 1994 08:49:37 GMT"
)

func request(t testing.TB, method string, fields ...string) (*http1.Request, []byte) {
	t.Helper()
	head := []byte(method + " /a HTTP/1.1\r\nHost: example.org\r\n" + lines(fields) + "\r\n")
	r := new(http1.Request)
	if err := r.Parse(head, nil); err != nil {
		t.Fatalf("parse %q: %v", head, err)
	}
	return r, head
}

func response(t testing.TB, status string, fields ...string) (*http1.Response, []byte) {
	t.Helper()
	head := []byte("HTTP/1.1 " + status + " x\r\n" + lines(fields) + "\r\n")
	r := new(http1.Response)
	if err := r.Parse(head, nil); err != nil {
		t.Fatalf("parse %q: %v", head, err)
	}
	return r, head
}

func lines(fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	return strings.Join(fields, "\r\n") + "\r\n"
}

// usual are the rules that an operator has who decides nothing.
var usual = Rules{StoreCookies: true, HeuristicMax: 86400 * second, StaleIfError: 86400 * second}

// exchange builds one from two lists of field lines.
func exchange(t testing.TB, method string, req []string, status string, resp []string) *Exchange {
	t.Helper()
	x := &Exchange{RequestTime: noon, ResponseTime: noon, Rules: usual}
	x.Request, x.RequestHead = request(t, method, req...)
	x.Response, x.ResponseHead = response(t, status, resp...)
	return x
}

// kept stores a 200 with these fields and returns what the cache would hold.
func kept(t testing.TB, fields ...string) (cache.Meta, []byte) {
	t.Helper()
	x := exchange(t, "GET", nil, "200", fields)
	m, why := x.Judge()
	if why != Storable {
		t.Fatalf("%q is not stored: %v", fields, why)
	}
	return m, x.AppendHead(nil, &m)
}
