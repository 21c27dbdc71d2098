package origin

import (
	"strconv"

	"trafficd/roles/server/http1"
)

// The built-in origin answers from within the process, so that an installation
// shows something before it has an origin. It speaks HTTP like any other: its
// answers are parsed, judged and stored as if they had come over a network.

const builtinPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>trafficd is running</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em; color: #222; background: #fff }
code { background: #f2f2f2; padding: .1em .3em; border-radius: 3px }
pre { background: #f2f2f2; padding: 1em; overflow-x: auto; border-radius: 3px }
pre code { padding: 0 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } code, pre { background: #2a2a2a } }
</style>
</head>
<body>
<h1>trafficd is running</h1>
<p>This page came the whole way: listener, server, cache, and the built-in
origin. Load it again and it comes from the cache; the <code>Age</code> field of
the response says for how long it has been there.</p>
<p>To put trafficd in front of a real origin, start it with a remap rule:</p>
<pre><code>trafficd cop --foreground --map /=http://127.0.0.1:9000</code></pre>
<p>To see its three processes:</p>
<pre><code>trafficd ctl status</code></pre>
</body>
</html>
`

const builtinMissing = "404 Not Found: the built-in origin has one page, at /\n"

var (
	builtinHome  = builtinResponse("200 OK", "text/html; charset=utf-8", "public, max-age=60", builtinPage)
	builtinOther = builtinResponse("404 Not Found", "text/plain; charset=utf-8", "no-store", builtinMissing)
	builtinRefus = builtinResponse("405 Method Not Allowed", "text/plain; charset=utf-8",
		"no-store\r\nAllow: GET, HEAD, POST", "405 Method Not Allowed: the built-in origin only has pages to read, and echoes what is sent to /\n")
)

// A builtin response: its head as an origin would send it, and its body.
type builtin struct{ head, body []byte }

func builtinResponse(status, contentType, cacheControl, body string) builtin {
	return builtin{
		head: []byte("HTTP/1.1 " + status + "\r\nServer: trafficd\r\nContent-Type: " + contentType +
			"\r\nCache-Control: " + cacheControl + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"),
		body: []byte(body),
	}
}

func builtinFor(x *Exchange) builtin {
	switch {
	case x.Method != http1.GET && x.Method != http1.HEAD:
		return builtinRefus
	case x.Path == "/":
		return builtinHome
	}
	return builtinOther
}

// startBuiltin answers x, at once if it does not wait for a body.
func (p *Pool) startBuiltin(x *Exchange) {
	if echoes(x) {
		p.startEcho(x)
		return
	}
	p.answerBuiltin(x, builtinFor(x))
}

func (p *Pool) answerBuiltin(x *Exchange, r builtin) {
	var resp http1.Response
	if err := resp.Parse(r.head, nil); err != nil {
		panic("origin: built-in response: " + err.Error())
	}
	sink := x.Handler.OriginHead(&resp, r.head, resp.Body(x.Method))
	if !x.active {
		return
	}
	if resp.Body(x.Method) != http1.None {
		for rest := r.body; len(rest) > 0; {
			n := copy(sink.Space(), rest)
			if !x.active {
				return
			}
			sink.Commit(n)
			rest = rest[n:]
		}
	}
	x.active = false
	x.Handler.OriginEnd()
}
