package heritage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/queue"
)

// TestMain lets the test binary be the child that inherits.
func TestMain(m *testing.M) {
	switch os.Getenv("HERITAGE_TEST_CHILD") {
	case "env":
		childTellsHeritage(FromEnv())
	case "systemd":
		// Socket activation sets the PID of the process that execs.
		if os.Getenv("LISTEN_PID") == "self" {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		}
		childTellsHeritage(FromSystemd())
	default:
		os.Exit(m.Run())
	}
}

func childTellsHeritage(s *Set, err error) {
	for _, name := range s.Names() {
		fd, _ := s.Get(name)
		status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Printf("%s nonblock=%v cloexec=%v\n", name, status&unix.O_NONBLOCK != 0, flags&unix.FD_CLOEXEC != 0)
	}
	if err != nil {
		fmt.Println("error:", err)
	}
	for _, v := range []string{EnvVar, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, set := os.LookupEnv(v); set {
			fmt.Println("still set:", v)
		}
	}
}

func memory(t *testing.T, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

func put(t *testing.T, s *Set, name string, fd int) {
	t.Helper()
	if err := s.Put(name, fd); err != nil {
		t.Fatal(err)
	}
}

// full makes one of everything an instance has.
func full(t *testing.T) *Set {
	t.Helper()
	s := New()
	t.Cleanup(func() { s.Close() })
	l, err := queue.Bind("127.0.0.1:0", 16)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, ListenerPrefix+l.Addr().String(), l.FD())
	f, err := queue.NewFIFO(10)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, QueueIn, f.In())
	put(t, s, QueueOut, f.Out())
	put(t, s, Stats, memory(t, 4096))
	put(t, s, Cache, memory(t, 8192))
	return s
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestChildInheritsByExec(t *testing.T) {
	s := full(t)
	put(t, s, "odd,name=50%", memory(t, 1))
	before := openFDs(t)
	files, env, err := s.Export(3)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HERITAGE_TEST_CHILD=env", "GORACE=atexit_sleep_ms=0", env)
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	CloseFiles(files)
	var want strings.Builder
	for _, name := range s.Names() {
		socket := name != Stats && name != Cache && name != "odd,name=50%"
		fmt.Fprintf(&want, "%s nonblock=%v cloexec=true\n", name, socket)
	}
	if string(out) != want.String() {
		t.Errorf("child says\n%swant\n%s", out, want.String())
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestChildBelievesOnlyWhatIsTrue(t *testing.T) {
	null, _ := os.Open("/dev/null")
	defer null.Close()
	for _, c := range []struct{ env, want string }{
		{"cache=3", "error: heritage: cache: descriptor 3: not a memfd"},
		{"listener:127.0.0.1:1=3", "descriptor 3: socket operation on non-socket"},
		{"queue.in=3", "descriptor 3: socket operation on non-socket"},
		{"stats=250", "descriptor 250: bad file descriptor"},
		{"stats", "is not name=fd"},
		{"x=3,stats=250", "x nonblock=false cloexec=true\nerror:"},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HERITAGE_TEST_CHILD=env", "GORACE=atexit_sleep_ms=0", EnvVar+"="+c.env)
		cmd.ExtraFiles = []*os.File{null}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "still set") {
			t.Errorf("%s: child says %q, %v; want %q", c.env, out, err, c.want)
		}
	}
}

func TestSocketActivation(t *testing.T) {
	s := full(t)
	var listener string
	for addr := range s.Listeners() {
		listener = ListenerPrefix + addr
	}
	sorted := s.Names()
	files, _, err := s.Export(3)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseFiles(files)
	n := strconv.Itoa(len(files))
	names := strings.Join([]string{"cache", "whatever", "queue.in", "queue.out", "stats"}, ":")
	all := listener + " nonblock=true cloexec=true\n"
	for _, c := range []struct{ what, pid, n, names, want string }{
		{"for us", "self", n, names, strings.Join(sorted, "\n") + "\n"},
		{"for another", "1", n, names, ""},
		{"not at all", "", n, names, ""},
		{"too many", "self", "100000", names, "error: heritage: LISTEN_FDS=\"100000\" is not a number from 0 to 253\n"},
		{"no number", "self", "x", names, "error: heritage: LISTEN_FDS=\"x\" is not a number from 0 to 253\n"},
		{"without names", "self", "2", "", all + "error: heritage: descriptor 3 (\"\") from systemd is neither a listening TCP socket nor one of ours\n"},
		{"wrong name", "self", "2", "queue.in:x", all + "error: heritage: queue.in: descriptor 3: socket operation on non-socket\n"},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HERITAGE_TEST_CHILD=systemd", "GORACE=atexit_sleep_ms=0", "LISTEN_PID="+c.pid, "LISTEN_FDS="+c.n, "LISTEN_FDNAMES="+c.names)
		cmd.ExtraFiles = files
		out, err := cmd.CombinedOutput()
		got := string(out)
		if c.what == "for us" {
			got = strings.NewReplacer(" nonblock=true", "", " nonblock=false", "", " cloexec=true", "").Replace(got)
		}
		if err != nil || got != c.want {
			t.Errorf("%s: child says %q, %v; want %q", c.what, got, err, c.want)
		}
	}
}

func TestSetOwnsItsDescriptors(t *testing.T) {
	before := openFDs(t)
	s := New()
	put(t, s, "a", memory(t, 1))
	fd := memory(t, 1)
	for name, want := range map[string]string{"a": "taken", "": "name of 0 bytes", "x\n": "control characters", strings.Repeat("x", 257): "name of 257"} {
		if err := s.Put(name, fd); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Put(%q) = %v, want %q", name, err, want)
		}
	}
	if err := s.Put("neg", -1); err == nil {
		t.Error("Put of descriptor -1")
	}
	put(t, s, "b", fd)
	if err := s.PutDup("c", fd); err != nil {
		t.Fatal(err)
	}
	if err := s.PutDup("c", fd); err == nil {
		t.Error("PutDup of a name taken")
	}
	dup, err := s.GetDup("b")
	if err != nil || dup == fd {
		t.Errorf("GetDup = %d, %v", dup, err)
	}
	unix.Close(dup)
	if _, err := s.GetDup("none"); err == nil {
		t.Error("GetDup of nothing")
	}
	if got, ok := s.Take("b"); !ok || got != fd {
		t.Errorf("Take = %d, %v", got, ok)
	}
	unix.Close(fd)
	if err := errors.Join(s.Remove("a"), s.Remove("a")); err != nil {
		t.Error(err)
	}
	if got := s.Names(); !slices.Equal(got, []string{"c"}) || s.Len() != 1 {
		t.Errorf("names %v", got)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestSetIsBounded(t *testing.T) {
	s := New()
	defer s.Close()
	fd := memory(t, 1)
	defer unix.Close(fd)
	for i := range MaxDescriptors {
		if err := s.PutDup(strconv.Itoa(i), fd); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutDup("more", fd); err == nil {
		t.Errorf("a Set of %d descriptors", s.Len())
	}
}

func TestMergeKeepsWhatWeHave(t *testing.T) {
	before := openFDs(t)
	s, o := New(), New()
	put(t, s, "both", memory(t, 1))
	put(t, o, "both", memory(t, 2))
	put(t, o, "new", memory(t, 2))
	mine, _ := s.Get("both")
	added, err := s.Merge(o)
	if err != nil || !slices.Equal(added, []string{"new"}) || o.Len() != 0 {
		t.Errorf("Merge = %v, %v; %d left", added, err, o.Len())
	}
	if fd, _ := s.Get("both"); fd != mine {
		t.Error("Merge replaced what we had")
	}
	c, err := s.Dup()
	if err != nil || !slices.Equal(c.Names(), s.Names()) {
		t.Errorf("Dup = %v, %v", c.Names(), err)
	}
	c.Close()
	s.Close()
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestSetTravelsAsAMessage(t *testing.T) {
	s := full(t)
	body, fds, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer queue.CloseAll(p[:])
	if err := queue.SendFD(p[0], body, fds...); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, got, err := queue.RecvFD(p[1], buf)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Unmarshal(buf[:n], got)
	if err != nil || !slices.Equal(r.Names(), s.Names()) {
		t.Fatalf("arrived %v, %v; want %v", r, err, s.Names())
	}
	defer r.Close()
	for _, name := range s.Names() {
		var a, b unix.Stat_t
		x, _ := s.Get(name)
		y, _ := r.Get(name)
		_, _ = unix.Fstat(x, &a), unix.Fstat(y, &b)
		if a.Ino != b.Ino || a.Dev != b.Dev {
			t.Errorf("%s arrived as something else", name)
		}
	}
}

func TestBadMessagesAreClosed(t *testing.T) {
	before := openFDs(t)
	for _, c := range []struct {
		body string
		fds  int
	}{
		{`{`, 1},
		{`{"heritage":["a"]}`, 2},
		{`{"heritage":["a","a"]}`, 2},
		{`{"heritage":["a",""]}`, 2},
		{`{"heritage":["a","queue.in"]}`, 2},
		{`{}`, 1},
	} {
		var fds []int
		for range c.fds {
			fds = append(fds, memory(t, 1))
		}
		if s, err := Unmarshal([]byte(c.body), fds); err == nil {
			t.Errorf("%s: %v", c.body, s.Names())
		}
	}
	if s, err := Unmarshal([]byte(`{"heritage":[]}`), nil); err != nil || s.Len() != 0 {
		t.Errorf("empty Set: %v", err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestEnvironmentNotation(t *testing.T) {
	for text, want := range map[string][]item{
		"":                             nil,
		"stats=3":                      {{"stats", 3}},
		"listener:[::1]:80=3,cache=12": {{"listener:[::1]:80", 3}, {"cache", 12}},
		"a%2Cb%3Dc%25=7":               {{"a,b=c%", 7}},
		"a=":                           nil, "a=2": nil, "a=-3": nil, "a=03": nil, "a=+3": nil, "a=99999999999": nil,
		"=3": nil, "a": nil, "a=3,": nil, "a=3,a=4": nil, "a=3,b=3": nil, "a%2=3": nil, "a%zz=3": nil, "a%0A=3": nil, "a=3=4": nil,
	} {
		got, err := parse(text)
		if !reflect.DeepEqual(got, want) || (err != nil) != (want == nil && text != "") {
			t.Errorf("parse(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("stats=3,listener:127.0.0.1:80=4")
	f.Add("a%2Cb=5")
	f.Add(",,==%%")
	f.Fuzz(func(t *testing.T, s string) {
		items, err := parse(s)
		if err != nil {
			return
		}
		if again, err := parse(format(items)); err != nil || !reflect.DeepEqual(again, items) {
			t.Errorf("%q is %v, written and read again %v, %v", s, items, again, err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"heritage":["stats","cache"]}`), 2)
	f.Add([]byte(`{"heritage":null}`), 0)
	f.Fuzz(func(t *testing.T, body []byte, fds int) {
		if names, err := parseManifest(body, fds); err == nil && len(names) != fds {
			t.Errorf("%d names for %d descriptors", len(names), fds)
		}
	})
}

func Example() {
	parent := New()
	defer parent.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer null.Close()
	if err := parent.PutDup("odd=name", int(null.Fd())); err != nil {
		fmt.Println(err)
		return
	}
	files, env, err := parent.Export(3) // exec.Cmd.ExtraFiles begin at 3
	if err != nil {
		fmt.Println(err)
		return
	}
	defer CloseFiles(files)
	fmt.Println(env)
	// Output:
	// TRAFFICD_HERITAGE=odd%3Dname=3
}
