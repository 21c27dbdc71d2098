package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// maxStream is the size of the largest object that is streamed past the cache.
const maxStream = 2 << 20

func (k *Client) hot() Object { return k.opts.small(k.rng.IntN(smallObjects)) }

func (k *Client) runKeepAlive(ctx context.Context) {
	k.repeat(ctx, func() bool { return k.get(ctx, k.hot(), 0) })
}

func (k *Client) runNewConn(ctx context.Context) {
	k.repeat(ctx, func() bool { return k.get(ctx, k.hot(), 0, closing) })
}

func (k *Client) runDownload(ctx context.Context) {
	k.repeat(ctx, func() bool { return k.get(ctx, k.opts.large(k.rng.IntN(largeObjects)), k.opts.Rate) })
}

// runStream asks for objects that the cache may not keep.
func (k *Client) runStream(ctx context.Context, f Framing) {
	k.repeat(ctx, func() bool {
		obj := Object{Number: k.number(), Size: k.between(1, maxStream), Framing: f, Rate: k.opts.Rate}
		obj.Hints = f == Length && k.serial%8 == 0
		return k.get(ctx, obj, 0)
	})
}

func (k *Client) runRange(ctx context.Context) {
	k.repeat(ctx, func() bool {
		if k.rng.IntN(2) == 0 {
			return k.inParts(ctx)
		}
		obj := k.opts.large(k.rng.IntN(largeObjects))
		return k.askPart(ctx, obj, k.rng.Int64N(obj.Size), k.opts.Rate)
	})
}

func (k *Client) askPart(ctx context.Context, obj Object, from int64, rate int) bool {
	p := part{206, from, from + k.between(1, obj.Size-from)}
	return k.ask(ctx, want{"GET", obj, p, rate}, fmt.Sprintf("Range: bytes=%d-%d", p.from, p.to-1))
}

// inParts asks for parts of an object that nobody has asked for before, and for the whole of it, which the cache puts
// together from them and from what the origin sends slowly.
func (k *Client) inParts(ctx context.Context) bool {
	obj := Object{Number: k.number(), Size: k.between(3, maxStream), Rate: k.opts.Rate, MaxAge: hotFor}
	for range 3 {
		if !k.askPart(ctx, obj, k.rng.Int64N(obj.Size), 0) {
			return false
		}
	}
	return k.get(ctx, obj, 0)
}

// runConditional goes through what a validator can bring: a 304 from a fresh
// object and from one that has to be asked about, one that is asked about afterwards, the whole when the validator
// is another one's, and heads only.
func (k *Client) runConditional(ctx context.Context) {
	steps := []struct {
		method string
		obj    func() Object
		field  func(Object) string
		status int
	}{
		{"GET", k.hot, func(o Object) string { return "If-None-Match: " + o.ETag() }, 304},
		{"GET", k.opts.asking, nil, 200},
		{"GET", k.opts.behind, nil, 200},
		{"HEAD", k.hot, nil, 200},
		{"GET", k.hot, func(Object) string { return `If-None-Match: "other", W/"another"` }, 200},
		{"GET", k.opts.asking, func(o Object) string { return "If-None-Match: " + o.ETag() }, 304},
		{"HEAD", k.hot, func(o Object) string { return "If-None-Match: " + o.ETag() }, 304},
	}
	i := 0
	k.repeat(ctx, func() bool {
		s := steps[i%len(steps)]
		i++
		obj := s.obj()
		var lines []string
		if s.field != nil {
			lines = append(lines, s.field(obj))
		}
		return k.ask(ctx, want{s.method, obj, part{s.status, 0, obj.Size}, 0}, lines...)
	})
}

// runCollapsed asks for the object of this moment, which is the same for all
// clients of the kind. Some come while the first answer is under way.
func (k *Client) runCollapsed(ctx context.Context) {
	every := k.opts.RoundEvery
	// They stay in the cache, so they are small, and slow all the same.
	rate := k.opts.Rate / 8
	last := int64(0)
	for ctx.Err() == nil {
		next := time.Now().Truncate(every).Add(every).Add(time.Duration(k.index%4) * every / 16)
		pause(ctx, time.Until(next))
		round := next.UnixNano() / int64(every)
		if ctx.Err() != nil || round == last {
			continue
		}
		last = round
		k.get(ctx, Object{Number: uint64(Collapsed+1)<<56 | uint64(round)&(1<<56-1), Size: int64(float64(rate) * every.Seconds() / 2), Rate: rate, MaxAge: hotFor}, 0)
	}
}

// runPipeline sends many requests at once and expects the answers in their
// order.
func (k *Client) runPipeline(ctx context.Context) {
	k.repeat(ctx, func() bool {
		var all strings.Builder
		wants := make([]want, 2+k.rng.IntN(39))
		for i := range wants {
			obj := k.hot()
			if k.rng.IntN(4) == 0 {
				obj = Object{Number: k.number(), Size: k.between(1, 32<<10), Framing: Framing(k.rng.IntN(2))}
			}
			wants[i] = want{"GET", obj, part{200, 0, obj.Size}, 0}
			all.WriteString(head("GET", obj.Target()))
		}
		return k.exchange(fmt.Sprintf("pipeline of %d GETs", len(wants)), func(w *wire) (bool, error) {
			if _, err := io.WriteString(w, all.String()); err != nil {
				return false, err
			}
			for i, a := range wants {
				keep, err := k.receive(ctx, w, a)
				if err != nil {
					return false, inPipeline(i, a, err)
				}
				if i == len(wants)-1 {
					return keep, nil
				}
				if !keep {
					return false, fmt.Errorf("%d answers, and an end after them", i+1)
				}
				k.asked++
				k.tally.requests.Add(1)
			}
			return true, nil
		})
	})
}

// inPipeline adds to an error which request it was.
func inPipeline(i int, a want, err error) error {
	text := fmt.Sprintf("answer %d, to GET %s: %s", i+1, a.obj.Target(), explain(err))
	var m *misstep
	if errors.As(err, &m) {
		return &misstep{m.offset, text}
	}
	return errors.New(text)
}

// runDribble sends heads in small pieces.
func (k *Client) runDribble(ctx context.Context) {
	k.repeat(ctx, func() bool {
		obj := k.hot()
		return k.exchange("GET "+obj.Target()+" in pieces", func(w *wire) (bool, error) {
			text := head("GET", obj.Target(), "X-Filler: "+strings.Repeat("x", k.rng.IntN(40)))
			for len(text) > 0 {
				n := min(len(text), 1+k.rng.IntN(8))
				if _, err := io.WriteString(w, text[:n]); err != nil {
					return false, err
				}
				text = text[n:]
				pause(ctx, time.Duration(k.rng.IntN(4000))*time.Microsecond)
			}
			return k.receive(ctx, w, want{"GET", obj, part{200, 0, obj.Size}, 0})
		})
	})
}

// runIdle keeps a connection that is hardly used. That it ends, or that something
// comes on it, is noticed when it happens.
func (k *Client) runIdle(ctx context.Context) {
	for {
		k.get(ctx, k.hot(), 0)
		if ctx.Err() != nil {
			return
		}
		if k.w == nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if err := k.watch(ctx, k.about(k.opts.IdleEvery)); err != nil {
			k.fail("idle", err)
		}
		// At the end each connection has to show once more that it works.
	}
}

// watch waits and wants nothing to happen on the connection.
func (k *Client) watch(ctx context.Context, d time.Duration) error {
	const look = time.Second // so long it may take to notice that ctx is over
	until := time.Now().Add(d)
	defer func(p time.Duration) { k.w.patience, k.w.waited = p, k.tally.waited }(k.w.patience)
	k.w.waited = nil // nobody waits for anything here
	for ctx.Err() == nil && time.Now().Before(until) {
		k.w.patience = max(min(look, time.Until(until)), time.Millisecond)
		b, err := k.w.in.Peek(1)
		switch {
		case err == nil:
			return fmt.Errorf("byte %#x that nobody asked for", b[0])
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
	return nil
}

// runProbe asks for the smallest object again and again and takes the time of
// each request as a whole.
func (k *Client) runProbe(ctx context.Context, lines ...string) {
	tick := time.NewTicker(k.opts.ProbeEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		if k.get(ctx, k.opts.small(0), 0, lines...) {
			k.tally.waited(began, time.Since(began))
		} else {
			pause(ctx, 10*time.Millisecond)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
