package witness

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// expectation is what an upload does about 100 Continue (RFC 9110 section 10.1.1).
type expectation uint8

const (
	none     expectation = iota
	honoured             // wait for it
	ignored              // the origin will not say it: wait a little, then go on
)

// littleWhile is how long a client waits for a 100 that may not come. RFC 9110
// section 10.1.1 gives no number, only that it must not be for ever.
const littleWhile = 300 * time.Millisecond

// upload is one POST; each has an object and an ID of its own.
type upload struct {
	obj    uint64
	size   int64
	f      Framing
	expect expectation
}

func (u upload) target() string {
	t := fmt.Sprintf("%s%d", sinkPath, u.obj)
	if u.expect == ignored {
		t += "?silent=1"
	}
	return t
}

func (u upload) id() string { return fmt.Sprintf("%x", u.obj) }

func (u upload) head() string {
	lines := []string{fieldID + ": " + u.id(), "Content-Type: application/octet-stream"}
	if u.f == Chunked {
		lines = append(lines, "Transfer-Encoding: chunked")
	} else {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", u.size))
	}
	if u.expect != none {
		lines = append(lines, "Expect: 100-continue")
	}
	return head("POST", u.target(), lines...)
}

func (k *Client) runUpload(ctx context.Context) {
	k.repeat(ctx, func() bool {
		return k.post(ctx, upload{obj: k.number(), size: k.between(1<<10, k.opts.MaxUpload)})
	})
}

func (k *Client) runUploadChunked(ctx context.Context) {
	k.repeat(ctx, func() bool {
		return k.post(ctx, upload{obj: k.number(), size: k.between(1, k.opts.MaxUpload), f: Chunked})
	})
}

func (k *Client) runExpect(ctx context.Context) {
	k.repeat(ctx, func() bool {
		u := upload{obj: k.number(), size: k.between(1, k.opts.MaxUpload/16), f: Framing(k.rng.IntN(2)), expect: honoured}
		if k.serial%2 == 0 {
			u.expect = ignored
		}
		return k.post(ctx, u)
	})
}

// post is one upload; its receipt must be that of exactly these bytes.
func (k *Client) post(ctx context.Context, u upload) bool {
	line := fmt.Sprintf("POST %s (%d bytes, %s)", u.target(), u.size, u.f)
	return k.exchange(line, func(w *wire) (bool, error) {
		if _, err := io.WriteString(w, u.head()); err != nil {
			return false, err
		}
		continued := 0
		if u.expect != none {
			n, err := awaitContinue(w, u.expect)
			if err != nil {
				return false, err
			}
			continued = n
		}
		sum, err := k.sendUpload(ctx, w, u, k.opts.Rate*2)
		if err != nil {
			return false, err
		}
		return k.receipt(w, u, sum, continued)
	})
}

// awaitContinue waits for a 100 and returns how many came: 0 or 1.
func awaitContinue(w *wire, e expectation) (int, error) {
	if e == ignored {
		patience, waited := w.patience, w.waited
		w.patience, w.waited = min(littleWhile, patience), nil // waiting in vain is the plan
		_, err := w.in.Peek(1)
		w.patience, w.waited = patience, waited
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, nil
		}
	}
	var a answer
	if err := a.readHead(w.in); err != nil {
		return 0, fmt.Errorf("in place of 100 Continue: %s", explain(err))
	}
	if a.status != 100 {
		return 0, fmt.Errorf("status %d in place of 100", a.status)
	}
	return 1, nil
}

// sendUpload sends the body and returns its CRC-32C.
func (k *Client) sendUpload(ctx context.Context, w io.Writer, u upload, rate int) (sum uint32, err error) {
	content := Body{k.opts.Seed, u.obj}
	pace := newPacer(rate)
	var buf []byte
	for off, i := int64(0), int(u.obj); off < u.size; i++ {
		n := min(int64(pieceSize(rate)), u.size-off)
		head, tail := "", ""
		if u.f == Chunked {
			n = min(n, chunkSizes[i%len(chunkSizes)])
			head, tail = fmt.Sprintf("%x\r\n", n), "\r\n"
		}
		buf = append(buf[:0], head...)
		buf = append(buf, make([]byte, n)...)
		content.Fill(buf[len(head):], off)
		sum = crc32.Update(sum, castagnoli, buf[len(head):])
		if _, err := w.Write(append(buf, tail...)); err != nil {
			return 0, wrongAt(off, "%s", explain(err))
		}
		off += n
		k.tally.bytes.Add(n)
		pause(ctx, pace.owed(n))
	}
	if u.f == Chunked {
		if _, err := io.WriteString(w, "0\r\n\r\n"); err != nil {
			return 0, wrongAt(u.size, "%s", explain(err))
		}
	}
	return sum, nil
}

// receipt reads the answer to an upload. Of 100 Continue there may be one in all.
func (k *Client) receipt(w *wire, u upload, sum uint32, continued int) (keep bool, err error) {
	a, err := readAnswer(w.in, "POST")
	if err != nil {
		return false, fmt.Errorf("in place of the answer to the upload: %s", explain(err))
	}
	if err := checkInterim(a.interim, u.expect != none && continued == 0, 100); err != nil {
		return false, err
	}
	return a.keepAlive(), checkText(a, 200, u.id(), receipt(u.id(), u.size, sum))
}

// checkText compares a short answer as a whole.
func checkText(a *answer, status int, token, text string) error {
	got, err := io.ReadAll(io.LimitReader(&a.body, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("in the answer to the upload: %s", explain(err))
	case a.status != status:
		return fmt.Errorf("status %d in place of %d: %.100q", a.status, status, got)
	case a.fields.get(fieldToken) != token || len(a.fields.all(fieldToken)) != 1:
		return fmt.Errorf("field %s is %q in place of %q", fieldToken, a.fields.all(fieldToken), token)
	case string(got) != text:
		return fmt.Errorf("answer %.100q in place of %.100q", got, text)
	}
	return checkNames(a.fields)
}

// runEarly uploads to an origin that has made up its mind by the head. What
// becomes of the body is the proxy's affair; the answer must come.
func (k *Client) runEarly(ctx context.Context) {
	k.repeat(ctx, func() bool {
		u := upload{obj: k.number(), size: k.between(1<<10, 1<<20)}
		target := u.target() + "?early=1"
		ok := k.exchange("POST "+target, func(w *wire) (bool, error) {
			text := head("POST", target, fieldID+": "+u.id(), fmt.Sprintf("Content-Length: %d", u.size))
			if _, err := io.WriteString(w, text); err != nil {
				return false, err
			}
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				k.sendUpload(ctx, w, u, k.opts.Rate) // its errors are the proxy's right
			}()
			a, err := readAnswer(w.in, "POST")
			if err == nil {
				err = checkText(a, 403, u.id(), earlyAnswer)
			} else {
				err = fmt.Errorf("in place of the early answer: %s", explain(err))
			}
			w.Close()
			<-sent
			return true, err
		})
		k.drop()
		return ok
	})
}
