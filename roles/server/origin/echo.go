package origin

import (
	"fmt"

	"trafficd/roles/server/http1"
)

// The built-in origin answers a POST to its page with what it was sent, so that an
// installation can be tried with uploads, too, before it has an origin.

// maxEcho bounds what is kept of a request's body to answer with.
const maxEcho = 64 << 10

var (
	builtinLarge = builtinResponse("413 Content Too Large", "text/plain; charset=utf-8", "no-store",
		fmt.Sprintf("413 Content Too Large: the built-in origin sends back up to %d bytes\n", maxEcho))
	echoType = "text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff"
)

// startEcho begins to take the body of x.
func (p *Pool) startEcho(x *Exchange) {
	x.echo = []byte{}
	x.echoing = p
	x.goOnEchoing()
}

// goOnEchoing takes what has come of the body, and answers at its end.
func (x *Exchange) goOnEchoing() {
	for x.Body != nil {
		b, state := x.Body.Next()
		if len(b) > 0 {
			if len(x.echo)+len(b) > maxEcho {
				x.endEcho(builtinLarge)
				return
			}
			x.bodyTaken = true
			x.echo = append(x.echo, b...)
			x.Body.Advance(len(b))
			continue
		}
		switch state {
		case BodyWait:
			return
		case BodyFailed:
			x.echo, x.echoing = nil, nil
			x.fail(Failure{Err: ErrBody, Connected: true})
			return
		}
		x.BodyDone = true
		break
	}
	r := builtinResponse("200 OK", echoType, "no-store", string(x.echo))
	x.endEcho(r)
}

func (x *Exchange) endEcho(r builtin) {
	p := x.echoing
	x.echo, x.echoing = nil, nil
	p.answerBuiltin(x, r)
}

// echoes reports whether x is answered with its own body.
func echoes(x *Exchange) bool { return x.Method == http1.POST && x.Path == "/" }
