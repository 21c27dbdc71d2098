package freshness

import (
	"bytes"
	"strings"
	"testing"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

func TestRFC9111Section3Storable(t *testing.T) {
	const fresh = "Cache-Control: max-age=60"
	none := []string(nil)
	for _, c := range []struct {
		name   string
		method string
		req    []string
		status string
		resp   []string
		want   Reason
	}{
		{"max-age", "GET", none, "200", []string{fresh}, Storable},
		{"s-maxage", "GET", none, "200", []string{"Cache-Control: s-maxage=60"}, Storable},
		{"Expires", "GET", none, "200", []string{"Expires: Sun, 06 Nov 1994 09:49:37 GMT"}, Storable},
		{"nothing explicit", "GET", none, "200", none, NoLifetime},
		{"only a validator", "GET", none, "200", []string{`ETag: "a"`}, NoLifetime},
		{"no-cache with validator", "GET", none, "200", []string{"Cache-Control: no-cache", `ETag: "a"`}, Storable},
		{"no-cache without validator", "GET", none, "200", []string{"Cache-Control: no-cache, max-age=60"}, NotReusable},
		{"max-age=0 with validator", "GET", none, "200", []string{"Cache-Control: max-age=0", "Last-Modified: " + noonDate}, Storable},
		{"max-age=0", "GET", none, "200", []string{"Cache-Control: max-age=0"}, NotReusable},
		{"old on arrival", "GET", none, "200", []string{fresh, "Age: 60"}, NotReusable},
		{"HEAD", "HEAD", none, "200", []string{fresh}, MethodNotCacheable},
		{"POST", "POST", none, "200", []string{fresh}, MethodNotCacheable},
		{"RFC 9110 9.3.3 POST", "POST", none, "200", []string{fresh, "Content-Location: /a"}, Storable},
		{"RFC 9110 9.3.3 POST, whole URI", "POST", none, "200", []string{fresh, "Content-Location: http://example.org/a"}, Storable},
		{"RFC 9110 9.3.3 POST with content", "POST", []string{"Content-Length: 1"}, "201", []string{fresh, "Content-Location: /a"}, Storable},
		{"RFC 9110 9.3.3 POST, other URI", "POST", none, "200", []string{fresh, "Content-Location: /b"}, MethodNotCacheable},
		{"RFC 9110 9.3.3 POST, other query", "POST", none, "200", []string{fresh, "Content-Location: /a?"}, MethodNotCacheable},
		{"RFC 9110 9.3.3 POST, other host", "POST", none, "200", []string{fresh, "Content-Location: http://example.com/a"}, MethodNotCacheable},
		{"RFC 9110 9.3.3 POST, nothing explicit", "POST", none, "200", []string{"Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT", "Content-Location: /a"}, MethodNotCacheable},
		{"RFC 9110 9.3.3 POST, error", "POST", none, "404", []string{fresh, "Content-Location: /a"}, MethodNotCacheable},
		{"RFC 9110 9.3.4 PUT", "PUT", none, "200", []string{fresh, "Content-Location: /a"}, MethodNotCacheable},
		{"GET with content", "GET", []string{"Content-Length: 1"}, "200", []string{fresh}, MethodNotCacheable},
		{"206", "GET", []string{"Range: bytes=0-1"}, "206", []string{fresh}, StatusNotCacheable},
		{"304", "GET", none, "304", []string{fresh}, StatusNotCacheable},
		{"500", "GET", none, "500", []string{fresh}, Storable},
		{"503", "GET", none, "503", none, NoLifetime},
		{"unregistered status", "GET", none, "299", []string{fresh}, Storable},
		{"599", "GET", none, "599", []string{fresh}, Storable},
		{"303", "GET", none, "303", []string{fresh}, Storable},
		{"412 is about the request", "GET", none, "412", []string{fresh}, StatusNotCacheable},
		{"407 is about who asked", "GET", none, "407", []string{fresh}, StatusNotCacheable},
		{"411 is about the request", "GET", none, "411", []string{fresh}, StatusNotCacheable},
		{"413 is about the request", "GET", none, "413", []string{fresh}, StatusNotCacheable},
		{"415 is about the request", "GET", none, "415", []string{fresh}, StatusNotCacheable},
		{"421 is about the connection", "GET", none, "421", []string{fresh}, StatusNotCacheable},
		{"RFC 6585 429", "GET", none, "429", []string{fresh}, StatusNotCacheable},
		{"302 explicit", "GET", none, "302", []string{fresh}, Storable},
		{"302", "GET", none, "302", none, NoLifetime},
		{"404", "GET", none, "404", []string{fresh}, Storable},
		{"request no-store", "GET", []string{"Cache-Control: no-store"}, "200", []string{fresh}, RequestNoStore},
		{"no-store", "GET", none, "200", []string{"Cache-Control: no-store, max-age=60"}, ResponseNoStore},
		{"no-store on a line of its own", "GET", none, "200", []string{fresh, "Cache-Control: No-Store"}, ResponseNoStore},
		{"5.2.2.3 must-understand", "GET", none, "200", []string{"Cache-Control: no-store, must-understand, max-age=60"}, Storable},
		{"5.2.2.3 status not understood", "GET", none, "299", []string{"Cache-Control: no-store, must-understand, max-age=60"}, StatusNotCacheable},
		{"5.2.2.3 without no-store", "GET", none, "599", []string{"Cache-Control: must-understand, max-age=60"}, StatusNotCacheable},
		{"private", "GET", none, "200", []string{"Cache-Control: private, max-age=60"}, ResponsePrivate},
		{"5.2.2.7 private with a field", "GET", none, "200", []string{`Cache-Control: max-age=60, private="Set-Cookie"`}, Storable},
		{"5.2.2.7 private with a token", "GET", none, "200", []string{`Cache-Control: max-age=60, private=Set-Cookie`}, Storable},
		{"5.2.2.7 private with no name", "GET", none, "200", []string{`Cache-Control: max-age=60, private=""`}, ResponsePrivate},
		{"5.2.2.7 private with what is no name", "GET", none, "200", []string{`Cache-Control: max-age=60, private="a b"`}, ResponsePrivate},
		{"5.2.2.7 private with and without", "GET", none, "200", []string{`Cache-Control: max-age=60, private="a", private`}, ResponsePrivate},
		{"malformed", "GET", none, "200", []string{"Cache-Control: private; max-age=60", `ETag: "a"`}, ControlMalformed},
		{"3.5 Authorization", "GET", []string{"Authorization: x"}, "200", []string{fresh}, Authorized},
		{"3.5 public", "GET", []string{"Authorization: x"}, "200", []string{fresh + ", public"}, Storable},
		{"3.5 must-revalidate", "GET", []string{"Authorization: x"}, "200", []string{fresh + ", must-revalidate"}, Storable},
		{"3.5 proxy-revalidate", "GET", []string{"Authorization: x"}, "200", []string{fresh + ", proxy-revalidate"}, Authorized},
		{"3.5 s-maxage", "GET", []string{"Authorization: x"}, "200", []string{"Cache-Control: s-maxage=60"}, Storable},
		{"7.3 Set-Cookie", "GET", none, "200", []string{fresh, "Set-Cookie: a=b"}, Storable},
		{"7.3 Set-Cookie Expires", "GET", none, "200", []string{"Expires: Sun, 06 Nov 1994 09:49:37 GMT", "Set-Cookie: a=b"}, Storable},
		{"7.3 Set-Cookie, nothing explicit", "GET", none, "200", []string{"Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT", "Set-Cookie: a=b"}, HasCookie},
		{"7.3 Set-Cookie public", "GET", none, "200", []string{"Cache-Control: public", "Last-Modified: Sun, 06 Nov 1994 07:49:37 GMT", "Set-Cookie: a=b"}, Storable},
		{"7.3 Set-Cookie private", "GET", none, "200", []string{fresh + ", private", "Set-Cookie: a=b"}, ResponsePrivate},
		{"4.1 Vary *", "GET", none, "200", []string{fresh, "Vary: *"}, VaryAny},
		{"4.1 Vary among others *", "GET", none, "200", []string{fresh, "Vary: Accept", "Vary: x, *"}, VaryAny},
		{"4.1 Vary by who asks", "GET", none, "200", []string{fresh, "Vary: x-forwarded-for"}, VaryAny},
		{"4.1 Vary by who asks among others", "GET", none, "200", []string{fresh, "Vary: Accept", "Vary: X-Forwarded-For"}, VaryAny},
		{"4.1 Vary malformed", "GET", none, "200", []string{fresh, "Vary: a b"}, VaryAny},
		{"4.1 Vary", "GET", none, "200", []string{fresh, "Vary: Accept-Encoding"}, Storable},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := exchange(t, c.method, c.req, c.status, c.resp).Judge(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// cache.store_cookies: false.
func TestCookiesAreStoredOnlyIfPublic(t *testing.T) {
	for _, c := range []struct {
		control string
		want    Reason
	}{
		{"max-age=60", HasCookie}, {"s-maxage=60", HasCookie}, {"max-age=60, public", Storable}, {`max-age=60, private="set-cookie"`, Storable},
	} {
		x := exchange(t, "GET", nil, "200", []string{"Cache-Control: " + c.control, "Set-Cookie: a=b"})
		x.Rules.StoreCookies = false
		if _, got := x.Judge(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.control, got, c.want)
		}
	}
}

// Last-Modified is a hundred seconds before the Date unless it says otherwise: a tenth of that are ten.
func TestRFC9111Section4_2_2Heuristic(t *testing.T) {
	const changed = "Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT"
	for _, c := range []struct {
		name   string
		status string
		fields []string
		want   int64 // seconds; 0: not stored
	}{
		{"a tenth", "200", []string{changed}, 10},
		{"Date counts, not now", "200", []string{changed, "Date: Sun, 06 Nov 1994 08:48:57 GMT", "Age: 1"}, 6},
		{"no Last-Modified", "200", nil, 0},
		{"Last-Modified invalid", "200", []string{"Last-Modified: x"}, 0},
		{"Last-Modified twice", "200", []string{changed, changed}, 0},
		{"changed just now", "200", []string{"Last-Modified: " + noonDate}, 0},
		{"changed tomorrow", "200", []string{"Last-Modified: Mon, 07 Nov 1994 08:49:37 GMT"}, 0},
		{"at most a day", "200", []string{"Last-Modified: Sun, 06 Nov 1984 08:49:37 GMT"}, 86400},
		{"explicit wins", "200", []string{changed, "Cache-Control: max-age=3"}, 3},
		{"Expires wins", "200", []string{changed, "Expires: Sun, 06 Nov 1994 08:49:38 GMT"}, 1},
		{"Pragma", "200", []string{changed, "Pragma: no-cache"}, 0},
		{"Pragma of another kind", "200", []string{changed, "Pragma: x"}, 10},
		{"201", "201", []string{changed}, 0},
		{"203", "203", []string{changed}, 10},
		{"204", "204", []string{changed}, 10},
		{"302", "302", []string{changed}, 0},
		{"302 public", "302", []string{changed, "Cache-Control: public"}, 10},
		{"403", "403", []string{changed}, 0},
		{"404", "404", []string{changed}, 10},
		{"501", "501", []string{changed}, 10},
		{"503", "503", []string{changed}, 0},
		{"599 public", "599", []string{changed, "Cache-Control: public"}, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, why := exchange(t, "GET", nil, c.status, c.fields).Judge()
			if (why == Storable) != (c.want > 0) {
				t.Fatalf("it is %v", why)
			}
			if c.want > 0 && m.Lifetime != c.want*second {
				t.Errorf("got %d s, want %d s", m.Lifetime/second, c.want)
			}
			if guessed := m.Flags&cache.Heuristic != 0; c.want > 3 && !guessed {
				t.Error("it is not marked as guessed")
			}
		})
	}
	x := exchange(t, "GET", nil, "200", []string{changed})
	x.Rules.HeuristicMax = 0
	if _, why := x.Judge(); why != NoLifetime {
		t.Errorf("switched off: %v", why)
	}
}

// What the operator decides where the response says nothing, or whatever it says.
func TestRules(t *testing.T) {
	const minute, hour = 60 * second, 3600 * second
	for _, c := range []struct {
		name     string
		rules    Rules
		status   string
		fields   []string
		lifetime int64
		want     Reason
	}{
		{"no negative caching", Rules{}, "404", nil, 0, NoLifetime},
		{"404", Rules{NegativeTTL: minute}, "404", nil, minute, Storable},
		{"410", Rules{NegativeTTL: minute}, "410", nil, minute, Storable},
		{"503", Rules{NegativeTTL: minute}, "503", nil, minute, Storable},
		{"403 is no absence", Rules{NegativeTTL: minute}, "403", nil, 0, NoLifetime},
		{"200", Rules{NegativeTTL: minute}, "200", nil, 0, NoLifetime},
		{"404 that says how long", Rules{NegativeTTL: minute}, "404", []string{"Cache-Control: max-age=5"}, 5 * second, Storable},
		{"404 that must not be stored", Rules{NegativeTTL: minute}, "404", []string{"Cache-Control: no-store"}, minute, ResponseNoStore},
		{"negative before guessed", Rules{NegativeTTL: minute, HeuristicMax: hour}, "404", []string{"Last-Modified: Sun, 06 Nov 1984 08:49:37 GMT"}, minute, Storable},
		{"404 with a cookie", Rules{NegativeTTL: minute, StoreCookies: true}, "404", []string{"Set-Cookie: a=b"}, minute, HasCookie},
		{"default", Rules{DefaultTTL: minute}, "200", nil, minute, Storable},
		{"guessed before default", Rules{DefaultTTL: minute, HeuristicMax: 5 * second}, "200", []string{"Last-Modified: Sun, 06 Nov 1984 08:49:37 GMT"}, 5 * second, Storable},
		{"whatever it says", Rules{TTL: minute}, "200", []string{"Cache-Control: max-age=5"}, minute, Storable},
		{"an error as it says", Rules{TTL: minute}, "500", []string{"Cache-Control: max-age=5"}, 5 * second, Storable},
		{"no error that says nothing", Rules{TTL: minute, DefaultTTL: minute}, "500", nil, 0, NoLifetime},
		{"no absence that says nothing", Rules{TTL: minute, DefaultTTL: minute}, "404", nil, 0, NoLifetime},
		{"no redirect that says nothing", Rules{TTL: minute, DefaultTTL: minute}, "302", nil, 0, NoLifetime},
		{"but not against its will", Rules{TTL: minute}, "200", []string{"Cache-Control: no-store"}, minute, ResponseNoStore},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := exchange(t, "GET", nil, c.status, c.fields)
			x.Rules = c.rules
			m, why := x.Judge()
			if why != c.want || m.Lifetime != c.lifetime {
				t.Errorf("got %v, %d s; want %v, %d s", why, m.Lifetime/second, c.want, c.lifetime/second)
			}
		})
	}
}

func TestRFC9213TargetedField(t *testing.T) {
	const long, hour = "Cache-Control: max-age=10000", "Expires: Sun, 06 Nov 1994 09:49:37 GMT"
	for _, c := range []struct {
		name   string
		fields []string
		want   Reason
		age    int64 // seconds of lifetime
	}{
		{"alone", []string{"CDN-Cache-Control: max-age=60"}, Storable, 60},
		{"greater than 2^31", []string{"CDN-Cache-Control: max-age=99999999999"}, Storable, header.MaxDelta},
		{"wins over Cache-Control", []string{long, "CDN-Cache-Control: max-age=60"}, Storable, 60},
		{"wins over no-store", []string{"Cache-Control: no-store", "CDN-Cache-Control: max-age=60"}, Storable, 60},
		{"wins over private", []string{"Cache-Control: private", "CDN-Cache-Control: max-age=60"}, Storable, 60},
		{"wins over malformed", []string{"Cache-Control: @", "CDN-Cache-Control: max-age=60"}, Storable, 60},
		{"wins over Expires", []string{hour, "CDN-Cache-Control: max-age=60"}, Storable, 60},
		{"wins over Expires without a lifetime", []string{hour, "CDN-Cache-Control: foo"}, NoLifetime, 0},
		{"max-age=0", []string{hour, "CDN-Cache-Control: max-age=0"}, NotReusable, 0},
		{"no-store", []string{long, "CDN-Cache-Control: no-store"}, ResponseNoStore, 0},
		{"private", []string{long, "CDN-Cache-Control: private"}, ResponsePrivate, 0},
		{"no-cache", []string{long, "CDN-Cache-Control: no-cache"}, NotReusable, 0},
		{"no-store that is not", []string{long, "CDN-Cache-Control: no-store=?0, max-age=60"}, Storable, 60},
		{"two lines", []string{"CDN-Cache-Control: max-age=60", "CDN-Cache-Control: no-store"}, ResponseNoStore, 60},
		{"extension", []string{`CDN-Cache-Control: foobar="x";y, max-age=60;z`}, Storable, 60},
		{"private with a field", []string{`CDN-Cache-Control: private="a", max-age=60`}, Storable, 60},
		{"no-store of no known type", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: no-store=1, max-age=60"}, Storable, 5},
		{"empty", []string{"Cache-Control: max-age=5", "CDN-Cache-Control:"}, Storable, 5},
		{"no dictionary", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: max-age=60, &&&"}, Storable, 5},
		{"capitals are no key", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: MAX-AGE=60"}, Storable, 5},
		{"blank before =", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: max-age =60"}, Storable, 5},
		{"blank after =", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: max-age= 60"}, Storable, 5},
		{"a string for a number", []string{"Cache-Control: no-store", `CDN-Cache-Control: max-age="60"`}, ResponseNoStore, 0},
		{"a number below zero", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: max-age=-1"}, NotReusable, 0},
		{"not for this kind of cache", []string{"Cache-Control: max-age=5", "Surrogate-Control: max-age=60", "Foo-Cache-Control: max-age=70"}, Storable, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, why := exchange(t, "GET", nil, "200", c.fields).Judge()
			if why != c.want || m.Lifetime != c.age*second {
				t.Errorf("got %v, %d s; want %v, %d s", why, m.Lifetime/second, c.want, c.age)
			}
		})
	}
	if _, head := kept(t, "CDN-Cache-Control: max-age=60"); !strings.Contains(string(head), "CDN-Cache-Control: max-age=60") {
		t.Errorf("RFC 9213 3.1: it is not forwarded: %q", head)
	}
}

func TestRFC9111Section5_2_2FieldsOfNoCacheAndPrivate(t *testing.T) {
	for _, c := range []struct {
		name    string
		control []string
		want    string // of the fields A, B and ETag
	}{
		{"private", []string{`Cache-Control: max-age=60, private="a"`}, "B: 2\r\nETag: \"x\"\r\n"},
		{"no-cache", []string{`Cache-Control: max-age=60, no-cache="A"`}, "B: 2\r\nETag: \"x\"\r\n"},
		{"both, on two lines", []string{`Cache-Control: no-cache="a , etag"`, `Cache-Control: max-age=60, private="B"`}, ""},
		{"targeted", []string{`Cache-Control: private="b"`, `CDN-Cache-Control: max-age=60, no-cache="a"`}, "B: 2\r\nETag: \"x\"\r\n"},
		{"of another directive", []string{`Cache-Control: max-age=60, foo="a"`}, "A: 1\r\nB: 2\r\nETag: \"x\"\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := exchange(t, "GET", nil, "200", append([]string{"A: 1", "B: 2", `ETag: "x"`}, c.control...))
			m, why := x.Judge()
			if why != Storable {
				t.Fatalf("it is %v", why)
			}
			head := x.AppendHead(nil, &m)
			got, _, _ := strings.Cut(string(head), "Cache-Control")
			got = strings.TrimSuffix(got, "CDN-")
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if x.LeavesOut() != (len(c.want) < len("A: 1\r\nB: 2\r\nETag: \"x\"\r\n")) {
				t.Errorf("partial: %v", x.LeavesOut())
			}
			tagged := strings.Contains(c.want, "ETag")
			if (ETag(&m, head) != nil) != tagged || (m.Flags&cache.HasValidator != 0) != tagged {
				t.Errorf("its tag is %q, flags %b", ETag(&m, head), m.Flags)
			}
		})
	}
}

func TestRFC9111Section4_2_1Lifetime(t *testing.T) {
	const hour = "Expires: Sun, 06 Nov 1994 09:49:37 GMT"
	for _, c := range []struct {
		name   string
		fields []string
		want   int64 // seconds
	}{
		{"max-age", []string{"Cache-Control: max-age=60"}, 60},
		{"s-maxage wins", []string{"Cache-Control: max-age=60, s-maxage=30", hour}, 30},
		{"max-age beats Expires", []string{"Cache-Control: max-age=60", hour}, 60},
		{"Expires", []string{hour}, 3600},
		{"Expires less Date", []string{hour, "Date: Sun, 06 Nov 1994 09:49:07 GMT"}, 30},
		{"Expires 0", []string{"Expires: 0"}, 0},
		{"Expires in the past", []string{"Expires: Sun, 06 Nov 1994 07:49:37 GMT"}, 0},
		{"two Expires", []string{hour, "Expires: Sun, 06 Nov 1994 10:49:37 GMT"}, 0},
		{"one Expires twice", []string{hour, hour}, 3600},
		{"max-age invalid beats Expires", []string{"Cache-Control: max-age=abc", hour}, 0},
		{"max-age negative", []string{"Cache-Control: max-age=-1"}, 0},
		{"max-age without value", []string{"Cache-Control: max-age"}, 0},
		{"max-age quoted", []string{`Cache-Control: max-age="60"`}, 60},
		{"max-age twice alike", []string{"Cache-Control: max-age=60", "Cache-Control: MAX-AGE=60"}, 60},
		{"max-age twice", []string{"Cache-Control: max-age=60, max-age=61"}, 0},
		{"max-age thrice", []string{"Cache-Control: max-age=60, max-age=61, max-age=60"}, 0},
		{"max-age overflows", []string{"Cache-Control: max-age=99999999999999999999999"}, header.MaxDelta},
		{"inside another value", []string{`Cache-Control: x="max-age=1", max-age=60`}, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := exchange(t, "GET", nil, "200", c.fields).Judge()
			if m.Lifetime != c.want*second {
				t.Errorf("got %d s, want %d s", m.Lifetime/second, c.want)
			}
		})
	}
}

func TestRFC9111Section4_2_3Age(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		delay  int64 // of the response, seconds
		later  int64 // when it is asked, seconds after arrival
		want   int64
	}{
		{"at once", nil, 0, 0, 0},
		{"resident", nil, 0, 10, 10},
		{"response delay", nil, 3, 0, 3},
		{"age value", []string{"Age: 20"}, 3, 10, 33},
		{"apparent age", []string{"Date: Sun, 06 Nov 1994 08:49:27 GMT"}, 0, 5, 15},
		{"the greater of both", []string{"Date: Sun, 06 Nov 1994 08:49:27 GMT", "Age: 50"}, 0, 0, 50},
		{"Date in the future", []string{"Date: Sun, 06 Nov 1994 09:49:27 GMT"}, 0, 0, 0},
		{"Date invalid", []string{"Date: yesterday"}, 0, 0, 0},
		{"5.1 first Age counts", []string{"Age: 7, 9", "Age: 3"}, 0, 0, 7},
		{"5.1 Age invalid", []string{"Age: -7"}, 0, 0, 0},
		{"Age overflows", []string{"Age: 99999999999999999999"}, 0, 10, header.MaxDelta},
		{"clock set back", []string{"Age: 7"}, 0, -3600, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := exchange(t, "GET", nil, "200", c.fields)
			x.RequestTime -= c.delay * second
			m, _ := x.Judge()
			if got := AgeSeconds(&m, noon+c.later*second); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestApparentAgeIsInWholeSeconds(t *testing.T) {
	x := exchange(t, "GET", nil, "200", []string{"Date: " + noonDate})
	x.RequestTime, x.ResponseTime = noon+second*9/10, noon+second*9/10
	if m, _ := x.Judge(); m.InitialAge != 0 {
		t.Errorf("a response of this second is %d ns old", m.InitialAge)
	}
}

func TestRFC9111Section4Decide(t *testing.T) {
	etag := `ETag: "a"`
	for _, c := range []struct {
		name   string
		stored []string
		req    []string
		at     int64 // seconds after it came
		want   Verdict
	}{
		{"fresh", []string{"Cache-Control: max-age=60"}, nil, 59, Fresh},
		{"at its end", []string{"Cache-Control: max-age=60"}, nil, 60, MustFetch},
		{"stale with validator", []string{"Cache-Control: max-age=60", etag}, nil, 60, Stale},
		{"5.2.2.4 no-cache", []string{"Cache-Control: no-cache, max-age=60", etag}, nil, 0, Stale},
		{"5.2.1.4 no-cache", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: no-cache"}, 0, Stale},
		{"5.4 Pragma", []string{"Cache-Control: max-age=60", etag}, []string{"Pragma: x, no-cache"}, 0, Stale},
		{"5.4 Pragma beside Cache-Control", []string{"Cache-Control: max-age=60", etag}, []string{"Pragma: no-cache", "Cache-Control: max-age=9"}, 0, Fresh},
		{"5.2.1.1 max-age", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: max-age=10"}, 11, Stale},
		{"5.2.1.1 max-age kept", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: max-age=10"}, 10, Fresh},
		{"5.2.1.1 max-age=0", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: max-age=0"}, 1, Stale},
		{"5.2.1.3 min-fresh", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: min-fresh=30"}, 31, Stale},
		{"5.2.1.3 min-fresh kept", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: min-fresh=30"}, 30, Fresh},
		{"5.2.1.3 min-fresh invalid", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: min-fresh=x"}, 0, Stale},
		{"5.2.1.2 max-stale", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: max-stale=10"}, 70, Fresh},
		{"5.2.1.2 max-stale exceeded", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: max-stale=10"}, 71, Stale},
		{"5.2.1.2 any max-stale", []string{"Cache-Control: max-age=60"}, []string{"Cache-Control: max-stale"}, 9999, Fresh},
		{"5.2.2.2 must-revalidate", []string{"Cache-Control: max-age=60, must-revalidate", etag}, []string{"Cache-Control: max-stale"}, 61, Stale},
		{"5.2.2.8 proxy-revalidate", []string{"Cache-Control: max-age=60, proxy-revalidate", etag}, []string{"Cache-Control: max-stale"}, 61, Stale},
		{"5.2.2.10 s-maxage", []string{"Cache-Control: s-maxage=60", etag}, []string{"Cache-Control: max-stale"}, 61, Stale},
		{"5.2.1.7 only-if-cached hit", []string{"Cache-Control: max-age=60"}, []string{"Cache-Control: only-if-cached"}, 1, Fresh},
		{"5.2.1.7 only-if-cached stale", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: only-if-cached"}, 61, OnlyIfCachedMiss},
		{"malformed request", []string{"Cache-Control: max-age=60", etag}, []string{"Cache-Control: @"}, 1, Stale},
		{"RFC 5861 3 fresh", []string{"Cache-Control: max-age=60, stale-while-revalidate=30"}, nil, 59, Fresh},
		{"RFC 5861 3 window", []string{"Cache-Control: max-age=60, stale-while-revalidate=30"}, nil, 60, Revalidate},
		{"RFC 5861 3 its end", []string{"Cache-Control: max-age=60, stale-while-revalidate=30"}, nil, 90, Revalidate},
		{"RFC 5861 3 beyond", []string{"Cache-Control: max-age=60, stale-while-revalidate=30", etag}, nil, 91, Stale},
		{"RFC 5861 3 never fresh", []string{"Cache-Control: max-age=0, stale-while-revalidate=30"}, nil, 5, Revalidate},
		{"RFC 5861 3 must-revalidate", []string{"Cache-Control: max-age=60, must-revalidate, stale-while-revalidate=30", etag}, nil, 61, Stale},
		{"RFC 5861 3 s-maxage", []string{"Cache-Control: s-maxage=60, stale-while-revalidate=30", etag}, nil, 61, Stale},
		{"RFC 5861 3 no-cache", []string{"Cache-Control: no-cache, max-age=60, stale-while-revalidate=30", etag}, nil, 61, Stale},
		{"RFC 5861 3 the client wants it fresh", []string{"Cache-Control: max-age=60, stale-while-revalidate=30", etag}, []string{"Cache-Control: no-cache"}, 61, Stale},
		{"RFC 5861 3 max-age of the client", []string{"Cache-Control: max-age=60, stale-while-revalidate=30", etag}, []string{"Cache-Control: max-age=60"}, 61, Stale},
		{"RFC 5861 3 min-fresh of the client", []string{"Cache-Control: max-age=60, stale-while-revalidate=30", etag}, []string{"Cache-Control: min-fresh=0"}, 61, Stale},
		{"RFC 5861 3 only-if-cached", []string{"Cache-Control: max-age=60, stale-while-revalidate=30", etag}, []string{"Cache-Control: only-if-cached"}, 61, OnlyIfCachedMiss},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := kept(t, c.stored...)
			q, head := request(t, "GET", c.req...)
			control := ParseRequest(q, head)
			if got := Decide(&m, &control, noon+c.at*second); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	nothing, only := newControl(), newControl()
	only.OnlyIfCached = true
	if got := Decide(nil, &nothing, noon); got != MustFetch {
		t.Errorf("nothing stored: got %v, want must fetch", got)
	}
	if got := Decide(nil, &only, noon); got != OnlyIfCachedMiss {
		t.Errorf("nothing stored, only-if-cached: got %v", got)
	}
}

// What has to be validated for each who asks is not for those who waited for it either.
func TestRFC9111Section4SingleUse(t *testing.T) {
	for control, want := range map[string]bool{
		"no-cache": true, "no-cache, max-age=60": true, `no-cache="set-cookie", max-age=60`: false,
		"max-age=0": false, "max-age=60, must-revalidate": false, "max-age=0, must-revalidate": true, "max-age=0, proxy-revalidate": true,
		"s-maxage=0, max-age=60": true, "s-maxage=60": false, "max-age=0, stale-while-revalidate=9": false,
	} {
		if m, _ := kept(t, "Cache-Control: "+control, `ETag: "a"`); SingleUse(&m) != want {
			t.Errorf("%s: %v", control, !want)
		}
	}
	if m, _ := kept(t, "Cache-Control: max-age=60, must-revalidate", "Age: 60", `ETag: "a"`); !SingleUse(&m) {
		t.Error("it was stale when it came")
	}
}

// What is served when the origin cannot be asked, or answers with an error. Usual are ten minutes.
func TestRFC5861Section4OnError(t *testing.T) {
	const etag = `ETag: "a"`
	for _, c := range []struct {
		name   string
		stored []string
		req    []string
		at     int64
		want   bool
	}{
		{"said", []string{"Cache-Control: max-age=60, stale-if-error=30"}, nil, 90, true},
		{"said and over", []string{"Cache-Control: max-age=60, stale-if-error=30"}, nil, 91, false},
		{"said to be none", []string{"Cache-Control: max-age=60, stale-if-error=0"}, nil, 61, false},
		{"not said", []string{"Cache-Control: max-age=60"}, nil, 660, true},
		{"not said and over", []string{"Cache-Control: max-age=60"}, nil, 661, false},
		{"never fresh", []string{"Cache-Control: max-age=0", etag}, nil, 1, false},
		{"never fresh, said", []string{"Cache-Control: max-age=0, stale-if-error=30", etag}, nil, 1, true},
		{"the client says so", []string{"Cache-Control: max-age=0", etag}, []string{"Cache-Control: stale-if-error=30"}, 30, true},
		{"the client says so, and it is over", []string{"Cache-Control: max-age=0", etag}, []string{"Cache-Control: stale-if-error=30"}, 31, false},
		{"must-revalidate", []string{"Cache-Control: max-age=60, must-revalidate, stale-if-error=30"}, nil, 61, false},
		{"proxy-revalidate", []string{"Cache-Control: max-age=60, proxy-revalidate, stale-if-error=30"}, nil, 61, false},
		{"s-maxage", []string{"Cache-Control: s-maxage=60, stale-if-error=30"}, nil, 61, false},
		{"no-cache", []string{"Cache-Control: no-cache, stale-if-error=30", etag}, nil, 0, false},
		{"no-cache of the client", []string{"Cache-Control: max-age=60, stale-if-error=30"}, []string{"Cache-Control: no-cache"}, 0, false},
		{"max-age of the client", []string{"Cache-Control: max-age=60, stale-if-error=30"}, []string{"Cache-Control: max-age=10"}, 20, false},
		{"still fresh", []string{"Cache-Control: max-age=60"}, []string{"Cache-Control: min-fresh=50"}, 30, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := kept(t, c.stored...)
			q, head := request(t, "GET", c.req...)
			control := ParseRequest(q, head)
			if got := OnError(&m, &control, 600*second, noon+c.at*second); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	m, _ := kept(t, "Cache-Control: max-age=60")
	nothing := newControl()
	if OnError(&m, &nothing, 0, noon+61*second) {
		t.Error("switched off: it is served")
	}
}

// What a rule says of serving stale counts more than what the response says.
func TestOwnWindows(t *testing.T) {
	x := exchange(t, "GET", nil, "200", []string{"Cache-Control: max-age=60, stale-if-error=30, stale-while-revalidate=30"})
	for _, c := range []struct{ own, want int64 }{{0, 30 * second}, {90 * second, 90 * second}, {Never, 0}} {
		x.Rules.OwnStaleIfError, x.Rules.OwnStaleWhileRevalidate = c.own, c.own
		m, _ := x.Judge()
		if m.StaleIfError != c.want || m.StaleWhileRevalidate != c.want || m.Flags&cache.SaysStaleIfError == 0 {
			t.Errorf("own %d: got %d, %d, flags %b", c.own, m.StaleIfError, m.StaleWhileRevalidate, m.Flags)
		}
	}
}

func TestRFC9111Section3_1Head(t *testing.T) {
	m, head := kept(t,
		"Cache-Control: max-age=60", "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "x-kept:  two  words ",
		"Age: 1", "Content-Length: 5", `ETag: W/"tag"`, "Set-Thing: a", "Set-Thing: b", "Date: "+noonDate)
	want := "Cache-Control: max-age=60\r\nx-kept: two  words\r\nETag: W/\"tag\"\r\nSet-Thing: a\r\nSet-Thing: b\r\nDate: " + noonDate + "\r\n"
	if string(head) != want {
		t.Errorf("got %q\nwant %q", head, want)
	}
	if got := string(ETag(&m, head)); got != `W/"tag"` || m.Flags != cache.HasValidator|cache.WeakETag {
		t.Errorf("ETag %q flags %b", got, m.Flags)
	}
}

func TestRFC9110Section6_6_1DateIsAdded(t *testing.T) {
	_, head := kept(t, "Cache-Control: max-age=60")
	if want := "Cache-Control: max-age=60\r\nDate: " + noonDate + "\r\n"; string(head) != want {
		t.Errorf("got %q, want %q", head, want)
	}
}

func TestRFC9111Section4_1Vary(t *testing.T) {
	for _, c := range []struct {
		name      string
		vary      []string
		first     []string
		block     string
		second    []string
		selection bool
	}{
		{"no Vary", nil, []string{"Accept: a"}, "", []string{"Accept: b"}, true},
		{"equal", []string{"Vary: Accept"}, []string{"Accept: a"}, "accept:a\n", []string{"Accept: a"}, true},
		{"other value", []string{"Vary: Accept"}, []string{"Accept: a"}, "accept:a\n", []string{"Accept: b"}, false},
		{"longer value", []string{"Vary: Accept"}, []string{"Accept: a"}, "accept:a\n", []string{"Accept: ab"}, false},
		{"absent in both", []string{"Vary: Accept"}, nil, "accept\n", nil, true},
		{"absent then empty", []string{"Vary: Accept"}, nil, "accept\n", []string{"Accept:"}, false},
		{"absent then there", []string{"Vary: X-A"}, nil, "x-a\n", []string{"X-A: 1"}, false},
		{"there then absent", []string{"Vary: X-A"}, []string{"X-A: 1"}, "x-a:1\n", nil, false},
		{"there then absent, known", []string{"Vary: Accept"}, []string{"Accept: a"}, "accept:a\n", nil, false},
		{"lines joined", []string{"Vary: X-A"}, []string{"X-A: 1", "x-a: 2"}, "x-a:1, 2\n", []string{"X-A: 1, 2"}, true},
		{"4.1 blanks in a list", []string{"Vary: X-A"}, []string{"X-A: 1,2"}, "x-a:1,2\n", []string{"X-A:  1, 2 "}, true},
		{"4.1 lines and blanks", []string{"Vary: X-A"}, []string{"X-A: 1 ,2"}, "x-a:1 ,2\n", []string{"X-A: 1", "X-A: 2"}, true},
		{"4.1 an empty member", []string{"Vary: X-A"}, []string{"X-A: a,b"}, "x-a:a,b\n", []string{"X-A: a,,b"}, false},
		{"4.1 an empty member before", []string{"Vary: X-A"}, []string{"X-A: a,b"}, "x-a:a,b\n", []string{"X-A: ,a,b"}, false},
		{"4.1 an empty member behind", []string{"Vary: X-A"}, []string{"X-A: a,b"}, "x-a:a,b\n", []string{"X-A: a,b,"}, false},
		{"4.1 an empty member in lines", []string{"Vary: X-A"}, []string{"X-A: 1,2"}, "x-a:1,2\n", []string{"X-A: 1", "X-A: , 2"}, false},
		{"4.1 an empty member for an empty line", []string{"Vary: X-A"}, []string{"X-A: 1,,2"}, "x-a:1,,2\n", []string{"X-A: 1", "X-A:", "X-A: 2"}, true},
		{"4.1 an empty line behind", []string{"Vary: X-A"}, []string{"X-A: 1", "X-A:"}, "x-a:1, \n", []string{"X-A: 1,"}, true},
		{"4.1 one empty member and two", []string{"Vary: X-A"}, []string{"X-A:"}, "x-a:\n", []string{"X-A: ,"}, false},
		{"4.1 only empty members", []string{"Vary: X-A"}, []string{"X-A: ,,"}, "x-a:,,\n", []string{"X-A: ,", "X-A:"}, true},
		{"4.1 an empty member of what is a list", []string{"Vary: Accept"}, []string{"Accept: a/b,c/d"}, "accept:a/b,c/d\n", []string{"Accept: a/b,,c/d", "Accept: ,"}, true},
		{"4.1 order of a list", []string{"Vary: X-A"}, []string{"X-A: 1,2"}, "x-a:1,2\n", []string{"X-A: 2,1"}, false},
		{"4.1 a longer list", []string{"Vary: X-A"}, []string{"X-A: 1"}, "x-a:1\n", []string{"X-A: 1, 2"}, false},
		{"4.1 blanks in quotes", []string{"Vary: X-A"}, []string{`X-A: "1,2"`}, "x-a:\"1,2\"\n", []string{`X-A: "1, 2"`}, false},
		{"4.1 case of a list", []string{"Vary: X-A"}, []string{"X-A: a"}, "x-a:a\n", []string{"X-A: A"}, false},
		{"4.1 no list", []string{"Vary: Cookie"}, []string{"Cookie: a=1,2"}, "cookie:a=1,2\n", []string{"Cookie: a=1, 2"}, false},
		{"4.1 blanks in Accept", []string{"Vary: Accept"}, []string{"Accept: a/b,c/d"}, "accept:a/b,c/d\n", []string{"Accept: a/b, c/d"}, true},
		{"4.1 order of Accept", []string{"Vary: Accept"}, []string{"Accept: a/b,c/d"}, "accept:a/b,c/d\n", []string{"Accept: c/d,a/b"}, false},
		{"4.1 order of encodings", []string{"Vary: Accept-Encoding"}, []string{"Accept-Encoding: gzip, br"}, "accept-encoding:gzip, br\n", []string{"Accept-Encoding: BR,gzip"}, true},
		{"4.1 weights of encodings", []string{"Vary: Accept-Encoding"}, []string{"Accept-Encoding: gzip, br;q=0.5"}, "accept-encoding:gzip, br;q=0.5\n", []string{"Accept-Encoding: br ; Q=0.500", "Accept-Encoding: gzip;q=1.0"}, true},
		{"4.1 other weights of encodings", []string{"Vary: Accept-Encoding"}, []string{"Accept-Encoding: gzip, br"}, "accept-encoding:gzip, br\n", []string{"Accept-Encoding: gzip, br;q=0.9"}, false},
		{"4.1 fewer encodings", []string{"Vary: Accept-Encoding"}, []string{"Accept-Encoding: gzip, br"}, "accept-encoding:gzip, br\n", []string{"Accept-Encoding: gzip"}, false},
		{"4.1 order and case of languages", []string{"Vary: Accept-Language"}, []string{"Accept-Language: en, de"}, "accept-language:en, de\n", []string{"Accept-Language:  De,eN "}, true},
		{"4.1 what is no weight", []string{"Vary: Accept-Language"}, []string{"Accept-Language: en, de"}, "accept-language:en, de\n", []string{"Accept-Language: de, en;x=1"}, false},
		{"4.1 the best language", []string{"Vary: Accept-Language", "Content-Language: de"}, []string{"Accept-Language: en, de"}, "accept-language:en, de\x00de\n", []string{"Accept-Language: fr;q=0.5, DE"}, true},
		{"4.1 one of the best languages", []string{"Vary: Accept-Language", "Content-Language: de"}, []string{"Accept-Language: en, de"}, "accept-language:en, de\x00de\n", []string{"Accept-Language: fr, de"}, false},
		{"4.1 not the best language", []string{"Vary: Accept-Language", "Content-Language: de"}, []string{"Accept-Language: en, de"}, "accept-language:en, de\x00de\n", []string{"Accept-Language: fr, de;q=0.9"}, false},
		{"4.1 two languages in one", []string{"Vary: Accept-Language", "Content-Language: de, en"}, []string{"Accept-Language: en, de"}, "accept-language:en, de\n", []string{"Accept-Language: de"}, false},
		{"lines joined otherwise", []string{"Vary: X-A"}, []string{"X-A: 1, 2"}, "x-a:1, 2\n", []string{"X-A: 1", "X-a: 2"}, true},
		{"blanks trimmed", []string{"Vary: X-A"}, []string{"X-A:   1  "}, "x-a:1\n", []string{"X-A: 1"}, true},
		{"sorted and once", []string{"Vary: X-B, accept", "Vary: x-b, X-A"}, []string{"X-B: 2"}, "accept\nx-a\nx-b:2\n", []string{"X-B: 2"}, true},
		{"colon in a value", []string{"Vary: X-A"}, []string{"X-A: a:b"}, "x-a:a:b\n", []string{"X-A: a:b"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := exchange(t, "GET", c.first, "200", append([]string{"Cache-Control: max-age=60"}, c.vary...))
			block, ok := x.AppendVary(nil)
			if !ok || string(block) != c.block {
				t.Fatalf("block %q, %v, want %q", block, ok, c.block)
			}
			if s := (&Selection{Request: x.Request, Head: x.RequestHead}); !s.MatchVary(block) {
				t.Error("the request that brought it does not select it")
			}
			q, head := request(t, "GET", c.second...)
			if s := (&Selection{Request: q, Head: head}); s.MatchVary(block) != c.selection {
				t.Errorf("second request selects it: %v, want %v", !c.selection, c.selection)
			}
		})
	}
}

// What an earlier version has stored of a response that varies by who asks is for nobody.
func TestVaryByWhoAsksSelectsNothing(t *testing.T) {
	for _, fields := range [][]string{nil, {"X-Forwarded-For: 1.2.3.4"}} {
		q, head := request(t, "GET", fields...)
		for _, block := range []string{"x-forwarded-for\n", "accept\nx-forwarded-for:1.2.3.4\n"} {
			if s := (&Selection{Request: q, Head: head}); s.MatchVary([]byte(block)) {
				t.Errorf("%q selects %q", fields, block)
			}
		}
	}
}

func TestVaryIsBounded(t *testing.T) {
	x := exchange(t, "GET", []string{"X-A: " + strings.Repeat("a", maxVaryBlock)}, "200", []string{"Vary: X-A"})
	if b, ok := x.AppendVary(nil); ok || len(b) != 0 {
		t.Error("a block beyond the bound was made")
	}
	var names []string
	for i := range maxVaryFields + 1 {
		names = append(names, "x-"+string(rune('a'+i)))
	}
	x = exchange(t, "GET", nil, "200", []string{"Cache-Control: max-age=60", "Vary: " + strings.Join(names, ",")})
	if _, why := x.Judge(); why != VaryAny {
		t.Errorf("more names than the bound: %v", why)
	}
}

func TestRFC9111Section4_3_1Conditions(t *testing.T) {
	m, head := kept(t, "Cache-Control: max-age=60", `ETag: "a"`, "Last-Modified: "+noonDate)
	want := "If-None-Match: \"a\"\r\nIf-Modified-Since: " + noonDate + "\r\n"
	if got := AppendConditions(nil, &m, head); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range [][]string{{"ETag: a"}, {`ETag: "a"`, `ETag: "b"`}, {"Last-Modified: never"}} {
		m, head := kept(t, append(bad, "Cache-Control: max-age=60")...)
		if got := AppendConditions(nil, &m, head); len(got) != 0 || m.Flags&cache.HasValidator != 0 {
			t.Errorf("%q: got %q", bad, got)
		}
	}
}

func TestRFC9111Section4_3_2NotModified(t *testing.T) {
	const later, earlier = "Sun, 06 Nov 1994 08:49:38 GMT", "Sun, 06 Nov 1994 08:49:36 GMT"
	tag, dated := []string{`ETag: "a"`, "Last-Modified: " + noonDate}, []string{"Last-Modified: " + noonDate}
	for _, c := range []struct {
		name   string
		stored []string
		req    []string
		want   bool
	}{
		{"no condition", tag, nil, false},
		{"match", tag, []string{`If-None-Match: "a"`}, true},
		{"weak match", tag, []string{`If-None-Match: W/"a"`}, true},
		{"in a list", tag, []string{`If-None-Match: "x", "a"`}, true},
		{"in the second line", tag, []string{`If-None-Match: "x"`, `If-None-Match: "a"`}, true},
		{"no match", tag, []string{`If-None-Match: "b"`}, false},
		{"any", tag, []string{"If-None-Match: *"}, true},
		{"malformed", tag, []string{`If-None-Match: x, "a"`}, false},
		{"13.2.2 If-None-Match decides alone", tag, []string{`If-None-Match: "b"`, "If-Modified-Since: " + later}, false},
		{"no tag stored", dated, []string{`If-None-Match: "a"`}, false},
		{"since the same time", dated, []string{"If-Modified-Since: " + noonDate}, true},
		{"since later", dated, []string{"If-Modified-Since: " + later}, true},
		{"since earlier", dated, []string{"If-Modified-Since: " + earlier}, false},
		{"13.1.3 invalid date", dated, []string{"If-Modified-Since: later"}, false},
		{"no Last-Modified: the Date", nil, []string{"If-Modified-Since: " + noonDate}, true},
		{"no Last-Modified: before the Date", nil, []string{"If-Modified-Since: " + earlier}, false},
		{"If-Match is not ours", tag, []string{`If-Match: "b"`}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, head := kept(t, append([]string{"Cache-Control: max-age=60"}, c.stored...)...)
			q, qh := request(t, "GET", c.req...)
			if got := NotModified(q, qh, &m, head); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			m.Status = 404
			if NotModified(q, qh, &m, head) {
				t.Error("RFC 9110 13.2.1: a 404 became a 304")
			}
		})
	}
}

func TestRFC9110Section15_4_5NotModifiedHead(t *testing.T) {
	_, head := kept(t, "Cache-Control: max-age=60", "Content-Type: text/plain", `ETag: "a"`, "X-A: b", "Vary: Accept")
	want := "Cache-Control: max-age=60\r\nETag: \"a\"\r\nVary: Accept\r\nDate: " + noonDate + "\r\n"
	if got := AppendNotModified(nil, head); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRFC9111Section3_2Update(t *testing.T) {
	m, head := kept(t, "Cache-Control: max-age=60", `ETag: "a"`, "Content-Type: text/plain", "Content-Encoding: gzip", "X-Old: 1", "X-Two: 1", "X-Two: 2")
	x := exchange(t, "GET", nil, "304", []string{
		"Cache-Control: max-age=90", "X-Two: 3", "X-New: 4", `ETag: "a"`, "Content-Encoding: br", "Content-Length: 9",
		"Set-Cookie: a=b", "Connection: X-Hop", "X-Hop: 5", "Age: 7",
	})
	x.RequestTime, x.ResponseTime = noon+100*second, noon+100*second
	var u Update
	next, block, why, err := u.Apply(x, &m, head)
	if err != nil || why != Storable {
		t.Fatalf("Apply: %v, %v", why, err)
	}
	want := "Content-Type: text/plain\r\nContent-Encoding: gzip\r\nX-Old: 1\r\n" +
		"Cache-Control: max-age=90\r\nX-Two: 3\r\nX-New: 4\r\nETag: \"a\"\r\nSet-Cookie: a=b\r\nDate: Sun, 06 Nov 1994 08:51:17 GMT\r\n"
	if string(block) != want {
		t.Errorf("got  %q\nwant %q", block, want)
	}
	if next.Lifetime != 90*second || AgeSeconds(&next, x.ResponseTime) != 7 || next.Status != 200 {
		t.Errorf("got %+v", next)
	}
	if string(ETag(&next, block)) != `"a"` {
		t.Errorf("ETag is %q", ETag(&next, block))
	}
}

func TestRFC9111Section4_3_4WhichResponse(t *testing.T) {
	for _, c := range []struct {
		name   string
		stored []string
		got    []string
		other  bool
		want   Reason
	}{
		{"same tag", []string{`ETag: "a"`}, []string{`ETag: "a"`}, false, Storable},
		{"other tag", []string{`ETag: "a"`}, []string{`ETag: "b"`}, true, Storable},
		{"tag where there was none", []string{"Last-Modified: " + noonDate}, []string{`ETag: "b"`}, true, Storable},
		{"other Last-Modified", []string{"Last-Modified: " + noonDate}, []string{"Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT"}, true, Storable},
		{"no validator", []string{`ETag: "a"`}, nil, false, Storable},
		{"same Vary", []string{`ETag: "a"`, "Vary: A, B"}, []string{"Vary: b"}, false, Storable},
		{"varies by more", []string{`ETag: "a"`, "Vary: A"}, []string{"Vary: a, Cookie"}, true, Storable},
		{"varies now", []string{`ETag: "a"`}, []string{"Vary: Cookie"}, true, Storable},
		{"varies by anything", []string{`ETag: "a"`}, []string{"Vary: *"}, false, VaryAny},
		{"varies by who asks", []string{`ETag: "a"`}, []string{"Vary: X-Forwarded-For"}, false, VaryAny},
		{"now no-store", []string{`ETag: "a"`}, []string{"Cache-Control: no-store"}, false, ResponseNoStore},
		{"now private", []string{`ETag: "a"`}, []string{"Cache-Control: private"}, false, ResponsePrivate},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, head := kept(t, append(c.stored, "Cache-Control: max-age=60")...)
			var u Update
			_, _, why, err := u.Apply(exchange(t, "GET", nil, "304", c.got), &m, head)
			if (err != nil) != c.other || why != c.want {
				t.Errorf("got %v, %v; want %v, other %v", why, err, c.want, c.other)
			}
		})
	}
}

// A validation by a weak tag says that the response is as good, not that its bytes are those of the strong tag: a range of
// them must not be taken for one of the others (RFC 9110 §13.1.5).
func TestRFC9111Section4_3_4WeakStaysWeak(t *testing.T) {
	for _, c := range []struct{ stored, got, want string }{
		{`W/"a"`, `"a"`, `W/"a"`}, {`W/"a"`, `W/"a"`, `W/"a"`}, {`"a"`, `W/"a"`, `W/"a"`}, {`"a"`, `"a"`, `"a"`},
	} {
		m, head := kept(t, "Cache-Control: max-age=60", "ETag: "+c.stored)
		for _, method := range []string{"GET", "HEAD"} {
			status := map[string]string{"GET": "304", "HEAD": "200"}[method]
			var u Update
			next, block, why, err := u.Apply(exchange(t, method, nil, status, []string{"ETag: " + c.got}), &m, head)
			if err != nil || why != Storable {
				t.Fatalf("%v: Apply: %v, %v", c, why, err)
			}
			if got := string(ETag(&next, block)); got != c.want {
				t.Errorf("%s: %s after %s in the %s: %s, want %s", method, c.stored, c.got, status, got, c.want)
			}
		}
	}
}

func TestRFC9111Section4_3_5Head(t *testing.T) {
	const changed = "Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT"
	m, head := kept(t, "Cache-Control: max-age=60", `ETag: "a"`, changed)
	for _, c := range []struct {
		status string
		fields []string
		want   Effect
	}{
		{"200", []string{`ETag: "a"`, "Content-Length: 5", changed}, Freshens},
		{"200", []string{`ETag: W/"a"`}, Freshens},
		{"200", []string{changed}, Freshens},
		{"200", []string{"Content-Length: 5"}, Freshens},
		{"200", nil, NoEffect},
		{"200", []string{`ETag: "b"`, "Content-Length: 5"}, Outdates},
		{"200", []string{`ETag: "a"`, "Last-Modified: " + noonDate}, Outdates},
		{"200", []string{`ETag: "a"`, "Content-Length: 6"}, Outdates},
		{"200", []string{"ETag: a"}, Outdates},
		{"404", nil, Outdates},
		{"410", []string{`ETag: "a"`}, Outdates},
		{"403", nil, NoEffect},
		{"503", nil, NoEffect},
		{"301", nil, NoEffect},
		{"206", []string{`ETag: "a"`}, NoEffect},
		{"304", []string{`ETag: "b"`}, NoEffect},
	} {
		if got := HeadEffect(exchange(t, "HEAD", nil, c.status, c.fields), &m, head, 5); got != c.want {
			t.Errorf("%s %q: %v, want %v", c.status, c.fields, got, c.want)
		}
	}
	// What is not received stays, and the lifetime begins anew.
	var u Update
	x := exchange(t, "HEAD", nil, "200", []string{`ETag: "a"`, "Cache-Control: max-age=90", "X-New: 1"})
	next, block, why, err := u.Apply(x, &m, head)
	if err != nil || why != Storable || next.Lifetime != 90*second {
		t.Fatalf("Apply: %v, %v, %d s", err, why, next.Lifetime/second)
	}
	if want := changed + "\r\nETag: \"a\"\r\nCache-Control: max-age=90\r\nX-New: 1\r\nDate: " + noonDate + "\r\n"; string(block) != want {
		t.Errorf("got %q, want %q", block, want)
	}
}

func TestRFC9111Section4_4Invalidation(t *testing.T) {
	for _, c := range []struct {
		method http1.Method
		status int
		want   bool
	}{
		{http1.POST, 200, true}, {http1.PUT, 204, true}, {http1.DELETE, 302, true}, {http1.PATCH, 200, true},
		{http1.Other, 200, true}, {http1.POST, 404, false}, {http1.POST, 500, false},
		{http1.GET, 200, false}, {http1.HEAD, 200, false}, {http1.OPTIONS, 200, false},
	} {
		if got := Invalidates(c.method, c.status); got != c.want {
			t.Errorf("%v %d: got %v, want %v", c.method, c.status, got, c.want)
		}
	}
	for _, c := range []struct {
		ref, path, query string
		ok               bool
	}{
		{"/b", "/b", "", true}, {"/b?c#d", "/b", "c", true}, {"/b#d?c", "/b", "", true},
		{"HTTP://Example.org/b", "/b", "", true}, {"http://example.org", "/", "", true},
		{"http://example.org.evil/b", "", "", false}, {"http://other/b", "", "", false}, {"https://example.org/b", "", "", false},
		{"//example.org/b", "", "", false}, {"b", "", "", false}, {"", "", "", false}, {"http://example.org:80@x/", "", "", false},
	} {
		path, query, ok := InvalidatedTarget([]byte(c.ref), []byte("http"), []byte("example.org"))
		if string(path) != c.path || string(query) != c.query || ok != c.ok {
			t.Errorf("%q: got %q %q %v", c.ref, path, query, ok)
		}
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	m, head := kept(t, "Cache-Control: max-age=60", `ETag: "a"`, "Vary: Accept-Encoding, X-A")
	q, qh := request(t, "GET", "Cache-Control: max-age=5", `If-None-Match: "b"`, "X-A: 1")
	buf := make([]byte, 0, 4096)
	s := &Selection{Request: q, Head: qh}
	vary, other := []byte("accept-encoding\nx-a:1\n"), []byte("accept-encoding\nx-a:1,2\n")
	if avg := testing.AllocsPerRun(100, func() {
		c := ParseRequest(q, qh)
		Decide(&m, &c, noon)
		NotModified(q, qh, &m, head)
		s.MatchVary(vary)
		s.MatchVary(other)
		AppendConditions(buf, &m, head)
		AppendNotModified(buf, head)
	}); avg != 0 {
		t.Errorf("%v allocations, want 0", avg)
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=60", `private="a, b", max-age="1"`, "no-cache, no-store,,", "s-maxage=", `x="`, "max-stale", "min-fresh=\\", "max-age=1, max-age=2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		c := newControl()
		c.add(value)
		for _, n := range []int64{c.MaxAge, c.SMaxAge, c.MinFresh, c.MaxStale, c.StaleIfError, c.StaleWhileRevalidate} {
			if n < Absent || n > header.MaxDelta {
				t.Fatalf("%q: a duration of %d", value, n)
			}
		}
		// What a second line adds never lifts a prohibition or lengthens a life.
		d := c
		d.add([]byte("public"))
		d.add(value)
		if c.NoStore && !d.NoStore || c.Private && !d.Private || c.NoCache && !d.NoCache || d.MaxAge > c.MaxAge || d.SMaxAge > c.SMaxAge {
			t.Fatalf("%q: twice is laxer than once: %+v, %+v", value, c, d)
		}
	})
}

func FuzzTargeted(f *testing.F) {
	for _, s := range []string{"max-age=60", `private="a, b", max-age=1`, "no-cache, max-age=-1;x", "s-maxage=1.5", "no-store=?0, stale-if-error=(1)", "private=a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		x := Exchange{Response: new(http1.Response), RequestTime: noon, ResponseTime: noon, Rules: usual}
		x.Request, x.RequestHead = request(t, "GET")
		x.ResponseHead = append(append([]byte("HTTP/1.1 200 x\r\nA: 1\r\nCache-Control: no-store\r\nCDN-Cache-Control: "), value...), "\r\n\r\n"...)
		if x.Response.Parse(x.ResponseHead, nil) != nil || len(x.Response.Fields) != 3 {
			return
		}
		m, why := x.Judge()
		if c := x.control; !c.Targeted && why == Storable || c.MaxAge < Absent || c.MaxAge > header.MaxDelta || c.SMaxAge > header.MaxDelta {
			t.Fatalf("%q: %v, %+v", value, why, c)
		}
		if x.AppendHead(nil, &m); x.LeavesOut() && !x.named([]byte("a")) && !x.named([]byte("cache-control")) && !x.named([]byte("cdn-cache-control")) {
			t.Fatalf("%q: it is partial for no field", value)
		}
	})
}

func FuzzVary(f *testing.F) {
	f.Add([]byte("Vary: Accept, X-A\r\n"), []byte("Accept: a\r\nX-A: b\r\n"), []byte("X-A: b\r\n"), []byte("x-a:b\n"))
	f.Add([]byte("Vary: Accept-Language\r\nContent-Language: de\r\n"), []byte("Accept-Language: en, de\r\n"), []byte("Accept-Language: de;q=1, en;q=0.5\r\n"), []byte("accept-language:en\x00de\n"))
	f.Add([]byte("Vary: x-a\r\nVary: X-B\r\n"), []byte("X-A: 1\r\nx-a: 2\r\n"), []byte("X-a: 1, 2\r\n"), []byte(""))
	f.Add([]byte("Vary: X-A\r\n"), []byte("X-A: a,b\r\n"), []byte("X-A: a,\r\nX-A: b\r\n"), []byte("x-a:a, , b\n"))
	f.Add([]byte("Vary: X-A\r\n"), []byte("X-A:\r\nX-A: ,\r\n"), []byte("X-A: , ,\r\n"), []byte("x-a:,\n"))
	f.Add([]byte("Vary: X-Forwarded-For\r\n"), []byte("X-Forwarded-For: 1.2.3.4\r\n"), []byte(""), []byte("x-forwarded-for\n"))
	f.Add([]byte(""), []byte(""), []byte(""), []byte("a\n:\nb:"))
	f.Fuzz(func(t *testing.T, vary, first, second, block []byte) {
		var x Exchange
		var q http1.Request
		head := func(line string, fields []byte) []byte { return append(append([]byte(line), fields...), "\r\n"...) }
		x.Request, x.Response = new(http1.Request), new(http1.Response)
		x.RequestHead, x.ResponseHead = head("GET / HTTP/1.1\r\nHost: a\r\n", first), head("HTTP/1.1 200 x\r\n", vary)
		other := head("GET / HTTP/1.1\r\nHost: a\r\n", second)
		if x.Request.Parse(x.RequestHead, nil) != nil || x.Response.Parse(x.ResponseHead, nil) != nil || q.Parse(other, nil) != nil {
			return
		}
		s := Selection{Request: &q, Head: other}
		s.MatchVary(block) // of any bytes
		mine, ok := x.AppendVary(nil)
		if !ok {
			return
		}
		if s := (Selection{Request: x.Request, Head: x.RequestHead}); !s.MatchVary(mine) {
			t.Fatalf("block %q does not match its own request %q", mine, x.RequestHead)
		}
		y := x
		y.Request, y.RequestHead = &q, other
		theirs, ok := y.AppendVary(nil)
		if !ok {
			return
		}
		match := s.MatchVary(mine)
		if SameAlternate(mine, theirs) != SameAlternate(theirs, mine) || SameAlternate(mine, theirs) && !match || bytes.Equal(mine, theirs) && !SameAlternate(mine, theirs) {
			t.Fatalf("blocks %q and %q, match %v, same %v", mine, theirs, match, SameAlternate(mine, theirs))
		}
		if match && bytes.IndexByte(mine, 0) < 0 && !SameAlternate(mine, theirs) {
			t.Fatalf("blocks %q and %q match and are not the same", mine, theirs)
		}
		if match && unknownCommas(mine) != unknownCommas(theirs) {
			t.Fatalf("blocks %q and %q match, with other commas", mine, theirs)
		}
	})
}

// unknownCommas counts the commas in lines of fields that are unknown: what matches has as many members, empty ones included.
func unknownCommas(block []byte) (n int) {
	for line := range bytes.Lines(block) {
		if name, value, _ := bytes.Cut(line, []byte(":")); header.Lookup(name) == header.Unknown {
			n += bytes.Count(value, []byte(","))
		}
	}
	return n
}

func FuzzUpdate(f *testing.F) {
	f.Add([]byte("Cache-Control: max-age=1\r\nETag: \"a\"\r\n"), []byte("Date: x\r\nX: y\r\n"))
	f.Add([]byte("ETag: \"a\"\r\nX: 1\r\nX: 2\r\n"), []byte("X: 3\r\nConnection: X\r\nAge: 5\r\n"))
	f.Fuzz(func(t *testing.T, stored, fields []byte) {
		q, qh := request(t, "GET")
		x := Exchange{Request: q, RequestHead: qh, Response: new(http1.Response), RequestTime: noon, ResponseTime: noon}
		x.ResponseHead = append(append([]byte("HTTP/1.1 200 x\r\n"), stored...), "\r\n"...)
		if x.Response.Parse(x.ResponseHead, nil) != nil {
			return
		}
		m, _ := x.Judge()
		head := x.AppendHead(nil, &m)
		y := x
		y.Response = new(http1.Response)
		y.ResponseHead = append(append([]byte("HTTP/1.1 304 x\r\n"), fields...), "\r\n"...)
		if y.Response.Parse(y.ResponseHead, nil) != nil {
			return
		}
		var u Update
		next, block, _, err := u.Apply(&y, &m, head)
		if err != nil {
			return
		}
		var r http1.Response
		if err := r.Parse(append(append([]byte("HTTP/1.1 200 x\r\n"), block...), "\r\n"...), nil); err != nil {
			t.Fatalf("block %q: %v", block, err)
		}
		if tag := ETag(&next, block); tag != nil && !bytes.Equal(tag, r.Value(append([]byte("HTTP/1.1 200 x\r\n"), block...), header.ETag)) {
			t.Fatalf("ETag span gives %q in %q", tag, block)
		}
		for _, id := range []header.ID{header.Age, header.ContentLength, header.Connection, header.TransferEncoding} {
			if r.Has(id) {
				t.Fatalf("%v in %q", id, block)
			}
		}
	})
}
