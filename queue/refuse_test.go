package queue

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func refused(t *testing.T, r *Refuser) (client *net.TCPConn) {
	t.Helper()
	l := mustBind(t, "127.0.0.1:0", 16)
	c := dial(t, l)
	r.Refuse(mustAccept(t, l))
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func answerTo(t *testing.T, c net.Conn, method string) (*http.Response, string) {
	t.Helper()
	req, _ := http.NewRequest(method, "http://x/", nil)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
		t.Errorf("after the answer: %q, %v; want the end", rest, err)
	}
	return resp, string(body)
}

func TestRefusedClientReadsAnHonestAnswer(t *testing.T) {
	r := NewRefuser(RefuserOptions{RetryAfter: 1500 * time.Millisecond, Linger: time.Hour, Body: "later\n"})
	defer r.Close()
	for method, want := range map[string]string{"GET": "later\n", "POST": "later\n", "HEAD": ""} {
		c := refused(t, r)
		if _, err := io.WriteString(c, method+" / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, body := answerTo(t, c, method)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "2" || !resp.Close || resp.ContentLength != 6 || body != want {
			t.Errorf("%s: %v, body %q", method, resp, body)
		}
		c.Close()
	}
	eventually(t, "all answered", func() bool { return r.Stats() == RefuserStats{Answered: 3} })
}

// A client in the middle of an upload must not be reset before it has read.
func TestUploadIsReadToTheEndOrBound(t *testing.T) {
	r := NewRefuser(RefuserOptions{Linger: time.Hour})
	defer r.Close()
	c := refused(t, r)
	body := strings.Repeat("x", 512<<10)
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	if resp, _ := answerTo(t, c, "POST"); resp.StatusCode != 503 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestSilentClientIsAnsweredAndClosedInTime(t *testing.T) {
	r := NewRefuser(RefuserOptions{Linger: 400 * time.Millisecond})
	defer r.Close()
	c := refused(t, r)
	if resp, _ := answerTo(t, c, "GET"); resp.StatusCode != 503 {
		t.Errorf("status %d", resp.StatusCode)
	}
	// The client does not close; the refusal ends all the same.
	eventually(t, "refusal ended", func() bool { return r.Stats() == RefuserStats{Answered: 1} })
}

func TestTooManyAtOnceAreAnsweredCurtly(t *testing.T) {
	r := NewRefuser(RefuserOptions{Linger: time.Hour, Most: 1})
	refused(t, r) // says nothing and keeps the only place
	l := mustBind(t, "127.0.0.1:0", 16)
	c := dial(t, l)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	fd := mustAccept(t, l)
	eventually(t, "request arrived", func() bool {
		n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		return err == nil && n > 0
	})
	r.Refuse(fd)
	if resp, _ := answerTo(t, c, "GET"); resp.StatusCode != 503 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if s := r.Stats(); s.Curt != 1 || s.Active != 1 {
		t.Errorf("%+v", s)
	}
	r.Close() // does not wait for an hour
	if s := r.Stats(); s.Failed != 1 || s.Active != 0 {
		t.Errorf("after Close: %+v", s)
	}
	late := refused(t, r)
	if n, err := late.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after Close a client read %d bytes, %v", n, err)
	}
}
