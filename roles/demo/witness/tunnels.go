package witness

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// runTunnel opens one tunnel after the other. In each, what is sent comes back
// turned over while more is sent, and at the end each side closes in turn.
func (k *Client) runTunnel(ctx context.Context) {
	k.repeat(ctx, func() bool {
		content := Body{k.opts.Seed, k.number()}
		target := fmt.Sprintf("%s%d", echoPath, content.Object)
		return k.exchange("tunnel "+target, func(w *wire) (bool, error) {
			if _, err := io.WriteString(w, upgrade(target)); err != nil {
				return false, err
			}
			// What is left to see afterwards, the end, is seen already.
			return false, k.inTunnel(ctx, w, content)
		})
	})
}

// runConnect opens one tunnel to the origin after the other, and in each one like runTunnel's. The request that
// is for the origin comes in half of them before the answer to that for the tunnel.
func (k *Client) runConnect(ctx context.Context) {
	k.repeat(ctx, func() bool {
		content := Body{k.opts.Seed, k.number()}
		inside := upgrade(fmt.Sprintf("%s%d", echoPath, content.Object))
		to, early := k.opts.Origin.Addr(), k.rng.IntN(2) == 0
		return k.exchange("CONNECT "+to, func(w *wire) (bool, error) {
			text := "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n"
			if early {
				text += inside
			}
			if _, err := io.WriteString(w, text); err != nil {
				return false, err
			}
			a, err := readAnswer(w.in, "CONNECT")
			if err != nil {
				return false, fmt.Errorf("in place of 200: %s", explain(err))
			}
			if err := checkConnect(a); err != nil {
				return false, err
			}
			if !early {
				if _, err := io.WriteString(w, inside); err != nil {
					return false, err
				}
			}
			return false, k.inTunnel(ctx, w, content)
		})
	})
}

func upgrade(target string) string {
	return head("GET", target, "Upgrade: "+protocol, "Connection: Upgrade")
}

// checkConnect wants a tunnel, and nothing that would be a body (RFC 9110 section 9.3.6).
func checkConnect(a *answer) error {
	switch {
	case a.status != 200:
		return fmt.Errorf("status %d in place of 200", a.status)
	case len(a.interim) > 0:
		return fmt.Errorf("interim responses %d", a.interim)
	case len(a.fields.all("Content-Length"))+len(a.fields.all("Transfer-Encoding")) > 0:
		return fmt.Errorf("the answer to a CONNECT has a body: %v", a.fields)
	}
	return checkNames(a.fields)
}

// inTunnel reads the origin's 101, and then talks.
func (k *Client) inTunnel(ctx context.Context, w *wire, content Body) error {
	a, err := readAnswer(w.in, "GET")
	if err != nil {
		return fmt.Errorf("in place of 101: %s", explain(err))
	}
	if err := checkUpgrade(a, content.Object); err != nil {
		return err
	}
	return k.talk(ctx, w, content)
}

func checkUpgrade(a *answer, object uint64) error {
	token := fmt.Sprintf("%d/0", object)
	switch {
	case a.status != 101:
		return fmt.Errorf("status %d in place of 101", a.status)
	case len(a.interim) > 0:
		return fmt.Errorf("interim responses %d", a.interim)
	case !a.fields.lists("Upgrade", protocol) || a.fields.get(fieldToken) != token:
		return fmt.Errorf("the 101 is not the origin's: %v", a.fields)
	}
	return checkNames(a.fields)
}

// talk sends and receives at once. The sender's result is how much it sent.
func (k *Client) talk(ctx context.Context, w *wire, content Body) error {
	type result struct {
		sent int64
		err  error
	}
	done := make(chan result, 1)
	rng := rand.New(rand.NewPCG(k.rng.Uint64(), 0))
	until := time.Now().Add(k.about(k.opts.TunnelTime))
	go func() {
		sent, err := k.speak(ctx, w, content, rng, until)
		done <- result{sent, err}
	}()
	heard, err := k.listen(w, content)
	if err != io.EOF {
		w.Close() // or the sender would go on
	}
	r := <-done
	switch {
	case err != io.EOF:
		return err
	case r.err != nil:
		return r.err
	case heard != r.sent:
		return wrongAt(heard, "the tunnel was closed %d bytes early", r.sent-heard)
	}
	return nil
}

// speak sends pieces until it is time, and then ends its direction.
func (k *Client) speak(ctx context.Context, w *wire, content Body, rng *rand.Rand, until time.Time) (int64, error) {
	buf := make([]byte, 8<<10)
	off := int64(0)
	for ctx.Err() == nil && time.Now().Before(until) {
		p := buf[:1+rng.IntN(len(buf))]
		content.Fill(p, off)
		if _, err := w.Write(p); err != nil {
			return off, wrongAt(off, "sending: %s", explain(err))
		}
		off += int64(len(p))
		k.tally.bytes.Add(int64(len(p)))
		pause(ctx, time.Duration(rng.IntN(20))*time.Millisecond)
	}
	return off, w.closeWrite()
}

// listen checks what comes back until the far end is done: io.EOF.
func (k *Client) listen(w *wire, content Body) (int64, error) {
	buf := make([]byte, 16<<10)
	off := int64(0)
	for {
		n, err := w.in.Read(buf)
		turned(buf[:n])
		if i := content.Check(buf[:n], off); i >= 0 {
			return off, wrongAt(off+int64(i), "byte %#x in place of %#x, turned over", ^buf[i], ^content.at(off+int64(i)))
		}
		off += int64(n)
		k.tally.bytes.Add(int64(n))
		if err == io.EOF {
			return off, io.EOF
		}
		if err != nil {
			return off, wrongAt(off, "%s", explain(err))
		}
	}
}
