package e2e

import (
	"fmt"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// reflecting answers with all that it was told, to be stored for all who ask for the target.
func reflecting(r *harness.RawRequest) harness.RawAnswer {
	body := r.Head + r.Body
	return harness.RawAnswer{Text: fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n%s", len(body), body)}
}

// Cache poisoning: an origin that makes its response of what is no part of the cache's key, and an
// attacker who asks first. Whoever asks next, without the attacker's fields, gets none of it.
func TestNobodyIsServedAnothersFields(t *testing.T) {
	t.Parallel()
	o := harness.NewRawOrigin(t, reflecting)
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	const clean = "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n"
	rows := []struct{ name, attack, clean string }{
		{"a body of a GET", "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\nContent-Length: 4\r\n\r\nevil", ""},
		{"a chunked body of a GET", "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", ""},
		{"a parameter behind a semicolon", "GET /page?a=1;b=evil HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a parameter twice", "GET /page?a=1&a=evil HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a parameter of campaigns", "GET /page?a=1&utm_content=evil HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"an empty query", "GET /page? HTTP/1.1\r\nHost: h.test\r\n\r\n", "GET /page HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		{"a port of Host", "GET /page?a=1 HTTP/1.1\r\nHost: h.test:1337\r\n\r\n", ""},
		{"the default port of Host", "GET /page?a=1 HTTP/1.1\r\nHost: h.test:80\r\n\r\n", ""},
		{"Host in capitals", "GET /page?a=1 HTTP/1.1\r\nHost: H.TesT\r\n\r\n", ""},
		{"Host with a dot at its end", "GET /page?a=1 HTTP/1.1\r\nHost: h.test.\r\n\r\n", ""},
		{"an absolute form with another Host field", "GET http://h.test/page?a=1 HTTP/1.1\r\nHost: evil.test\r\n\r\n", ""},
		{"an absolute form of another host", "GET http://evil.test/page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"an absolute form in capitals", "GET HTTP://H.TEST/page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a path with dot segments", "GET /evil/../page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a path with encoded dot segments", "GET /evil/%2e%2e/page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a path with two slashes", "GET //page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a path that is encoded", "GET /pag%65?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a path in capitals", "GET /PAGE?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"a method in small letters", "get /page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
		{"an unknown method", "EVIL /page?a=1 HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
	}
	for _, f := range []string{
		"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded-Uri",
		"X-Host", "X-Original-Host", "X-Url-Scheme", "Front-End-Https", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "Proxy",
		"X-Forwarded", "X-Forwarded-Path", "X-Forwarded-Protocol", "X-Host-Override", "X-HTTP-Host-Override", "X-Original-Uri", "X-Rewrite-Uri", "X-Scheme", "X-Script-Name", "X-Wap-Profile",
		"X-Forwarded-For", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Client-IP", "X-Cluster-Client-IP", "X-Originating-IP", "X-Remote-Addr",
		"Forwarded-Host", "Forwarded-Proto", "X-Forwarded-Url", "X-Forwarded-Https", "X-Original-Path", "X-Envoy-Original-Path", "X-Forwarded-Method", "X-Original-Method",
		"Fastly-Client-IP", "Proxy-Client-IP", "WL-Proxy-Client-IP",
		"X_Forwarded_Host", "X-Forwarded_Host", "X_Original_URL", "x-forwarded-hOST",
	} {
		rows = append(rows, struct{ name, attack, clean string }{f, "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\n" + f + ": evil\r\n\r\n", ""})
	}
	for _, v := range []string{"host=evil", "for=1.2.3.4;host=evil;proto=https", "for=1.2.3.4, host=evil", "evil", "for=evil", "for=\"<evil>\";by=1.2.3.4"} {
		rows = append(rows, struct{ name, attack, clean string }{"Forwarded: " + v, "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\nForwarded: " + v + "\r\n\r\n", ""})
	}
	rows = append(rows,
		struct{ name, attack, clean string }{"a nominated field", "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\nConnection: X-Device\r\nX-Device: evil\r\n\r\n", "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\nX-Device: phone\r\n\r\n"},
		struct{ name, attack, clean string }{"a range", "GET /page?a=1 HTTP/1.1\r\nHost: h.test\r\nRange: bytes=0-3,evil\r\n\r\n", ""},
	)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			page := fmt.Sprintf("page%d", i)
			ask := func(text string) *harness.Response {
				text = strings.NewReplacer("/page", "/"+page, "/pag%65", "/pag%65"+page[4:], "/PAGE", "/"+strings.ToUpper(page)).Replace(text)
				method, _, _ := strings.Cut(text, " ")
				return p.Client().Dial().Send(text).Read(method)
			}
			ask(row.attack)
			if row.clean == "" {
				row.clean = clean
			}
			for _, who := range []string{"the victim", "the next one"} {
				r := ask(row.clean)
				r.ExpectStatus(200)
				if body := strings.ToLower(string(r.Body)); strings.Contains(body, "evil") || strings.Contains(body, "1337") || !strings.Contains(body, "host: h.test\r\n") || !strings.HasPrefix(string(r.Body), "GET /"+page) {
					t.Errorf("%s got %q", who, r.Body)
				}
			}
		})
	}
}

// A proxy in front that says how it was reached, with every request, does not keep the cache from
// its work.
func TestForwardedFieldsArePartOfTheKey(t *testing.T) {
	t.Parallel()
	o := harness.NewRawOrigin(t, reflecting)
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	ask := func(fields string) *harness.Response {
		return p.Client().Dial().Send("GET /page HTTP/1.1\r\nHost: h.test\r\n" + fields + "\r\n").Read("GET").ExpectStatus(200)
	}
	const https = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: www.test\r\nForwarded: for=1.2.3.4;proto=https\r\n"
	first := ask(https)
	if ask(strings.ReplaceAll(https, "1.2.3.4", "5.6.7.8")).Get("Age") == "" {
		t.Error("the same, asked by another client, came from the origin")
	}
	if !strings.Contains(string(first.Body), "X-Forwarded-Proto: https\r\n") {
		t.Errorf("the origin was not told: %q", first.Body)
	}
	if ask("").Get("Age") != "" || ask("X-Forwarded-Proto: http\r\n").Get("Age") != "" {
		t.Error("reached otherwise, it came from the cache")
	}
	// An unsafe request by the same way makes it stale (RFC 9111 section 4.4).
	p.Client().Dial().Send("POST /page HTTP/1.1\r\nHost: h.test\r\nContent-Length: 0\r\n" + https + "\r\n").Read("POST")
	if ask(https).Get("Age") != "" {
		t.Error("it survived a POST")
	}
}
