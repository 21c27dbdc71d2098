package parent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"trafficd/roles/server/remap"
)

var errTest = errors.New("no answer")

const second1 = int64(time.Second)

// group makes a directory with one group of servers a, b, c … of the given weights.
func group(t *testing.T, p Policy, weights ...int) *Group {
	t.Helper()
	d := NewDirectory(Settings{FailThreshold: 1, DownTime: time.Minute, RetryBudget: 20}, nil)
	d.Configure(*d.settings.Load(), []Spec{spec(p, weights...)})
	return d.Of(&remap.Origin{Group: "g"})
}

func spec(p Policy, weights ...int) Spec {
	s := Spec{Name: "g", Policy: p}
	for i, w := range weights {
		s.Servers = append(s.Servers, ServerSpec{Host: string(rune('a' + i)), Port: 80, Weight: w})
	}
	return s
}

// picks makes n requests and names the servers they went to.
func picks(g *Group, n int, now int64) string {
	var b strings.Builder
	for range n {
		if s, probe := g.Pick(0, 0, now); s == nil {
			b.WriteByte('-')
		} else if probe {
			b.WriteString(strings.ToUpper(s.Host))
		} else {
			b.WriteString(s.Host)
		}
	}
	return b.String()
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		name    string
		policy  Policy
		weights []int
		down    string // servers, out of the order in which they fail
		want    string
	}{
		{"one server", RoundRobin, []int{1}, "", "aaaa"},
		{"in turn", RoundRobin, []int{1, 1, 1}, "", "abcabc"},
		{"in turn by weight, the turns spread", RoundRobin, []int{5, 1, 1}, "", "aabacaa"},
		{"in turn without the dead", RoundRobin, []int{1, 1, 1}, "b", "acacac"},
		{"strict", Strict, []int{1, 1, 1}, "", "aaa"},
		{"strict, the first dead", Strict, []int{1, 1, 1}, "a", "bbb"},
		{"strict, the first two dead", Strict, []int{1, 1, 1}, "ab", "ccc"},
		{"latched", Latched, []int{1, 1, 1}, "a", "bbb"},
		{"all dead: one finds out", Strict, []int{1, 1}, "ab", "A---"},
		{"all dead, in turn", RoundRobin, []int{1, 1}, "ba", "B---"},
		{"the only one is dead", RoundRobin, []int{1}, "a", "A--"},
	} {
		g := group(t, c.policy, c.weights...)
		for i, name := range c.down {
			for _, s := range g.servers {
				if s.Host == string(name) {
					s.Fail(int64(i), false, errTest)
				}
			}
		}
		if got := picks(g, len(c.want), second1); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// Strict goes back to the first as soon as that is well; latched stays where it is.
func TestWhatBecomesOfAServerThatIsBack(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		later  string // after the time that a stays down
		back   string // once a has answered
	}{
		{Strict, "Abb", "aaa"},
		{Latched, "bbb", "bbb"},
		{RoundRobin, "bAb", "aba"},
	} {
		g := group(t, c.policy, 1, 1)
		if got := picks(g, 1, 0); got != "a" {
			t.Fatalf("first %s", got)
		}
		g.servers[0].Fail(0, false, errTest)
		if got := picks(g, 3, second1); got != "bbb" {
			t.Errorf("policy %d, a down: %s", c.policy, got)
		}
		if got := picks(g, 3, 61*second1); got != c.later {
			t.Errorf("policy %d, a due: got %s, want %s", c.policy, got, c.later)
		}
		g.servers[0].Pass()
		if got := picks(g, 3, 62*second1); got != c.back && !(c.policy == RoundRobin && got == "bab") {
			t.Errorf("policy %d, a back: got %s, want %s", c.policy, got, c.back)
		}
	}
}

func TestTheLatchMovesWithAFailure(t *testing.T) {
	g := group(t, Latched, 1, 1, 1)
	g.servers[0].Fail(0, false, errTest)
	picks(g, 1, 0)
	g.servers[1].Fail(0, false, errTest)
	if got := picks(g, 2, 0); got != "cc" {
		t.Errorf("got %s, want cc", got)
	}
	g.servers[0].Pass()
	g.servers[1].Pass()
	if got := picks(g, 2, 0); got != "cc" {
		t.Errorf("once all are back: got %s, want cc", got)
	}
}

// A probe that is given up does not lock the server out, and one that fails leaves the next request to find out.
func TestTheNextRequestFindsOut(t *testing.T) {
	g := group(t, RoundRobin, 1)
	s := g.servers[0]
	s.Fail(0, false, errTest)
	for _, end := range []func(){func() { s.Abandon(1) }, func() { s.Fail(1, false, errTest) }} {
		if got := picks(g, 2, 1); got != "A-" {
			t.Errorf("got %s, want one probe", got)
		}
		end()
	}
	if got := picks(g, 1, 1); got != "A" {
		t.Errorf("got %s", got)
	}
	s.Pass()
	if got := picks(g, 3, 1); got != "aaa" {
		t.Errorf("got %s after an answer", got)
	}
}

func TestWhatWasTriedIsNotTriedAgain(t *testing.T) {
	for _, p := range []Policy{RoundRobin, Strict, ConsistentHash, Latched} {
		g := group(t, p, 1, 1, 1)
		var tried Set
		for range 3 {
			if !g.Others(tried) {
				t.Fatalf("policy %d: no others after %b", p, tried)
			}
			s, _ := g.Pick(7, tried, 0)
			if s == nil || tried.Has(s.Index()) {
				t.Fatalf("policy %d: got %v with %b tried", p, s, tried)
			}
			tried.Add(s.Index())
		}
		if s, _ := g.Pick(7, tried, 0); s != nil || g.Others(tried) {
			t.Errorf("policy %d: got %s with all tried", p, s.Name())
		}
	}
}

// A server that is alone is down when it cannot be connected to, not when it does not answer; and a connection is proof.
func TestAServerThatIsAlone(t *testing.T) {
	g := group(t, RoundRobin, 1)
	s := g.servers[0]
	for range 10 {
		s.Fail(0, true, errTest)
	}
	if got := picks(g, 2, 0); got != "aa" {
		t.Errorf("without answers: got %s, want aa", got)
	}
	s.Fail(0, false, errTest)
	if got := picks(g, 2, 0); got != "A-" {
		t.Errorf("without connections: got %s, want one that finds out", got)
	}
	if !s.Reached() {
		t.Error("a connection is no proof")
	}
	if got := picks(g, 2, 0); got != "aa" {
		t.Errorf("with a connection: got %s", got)
	}
	both := group(t, RoundRobin, 1, 1).servers[0]
	if both.Fail(0, true, errTest); both.State() != Down || both.Reached() {
		t.Error("one of several is taken for one that is alone")
	}
}

// The death of a server moves its own keys only, and they are spread over the others.
func TestConsistentHash(t *testing.T) {
	g := group(t, ConsistentHash, 1, 1, 1, 1, 2)
	const keys = 20000
	owner := func(i int) int {
		s, _ := g.Pick(Hash([]byte("www.example"), fmt.Appendf(nil, "/page/%d", i)), 0, 0)
		return s.Index()
	}
	before := make([]int, keys)
	share := map[int]int{}
	for i := range before {
		before[i] = owner(i)
		share[before[i]]++
	}
	for s, n := range share {
		want := keys * g.servers[s].weight / 6
		if n < want*3/4 || n > want*5/4 {
			t.Errorf("server %d of weight %d has %d keys, want about %d", s, g.servers[s].weight, n, want)
		}
	}
	g.servers[2].Fail(0, false, errTest)
	heirs := map[int]int{}
	for i := range before {
		switch now := owner(i); {
		case before[i] != 2 && now != before[i]:
			t.Fatalf("key %d moved from %d to %d", i, before[i], now)
		case before[i] == 2:
			heirs[now]++
		}
	}
	if len(heirs) != 4 || heirs[2] != 0 {
		t.Errorf("the dead server's keys went to %v", heirs)
	}
}

func TestBudget(t *testing.T) {
	var b budget
	spend := func(now int64) (n int) {
		for b.spend(now, 20) {
			n++
		}
		return n
	}
	if got := spend(0); got != freeRepeats {
		t.Errorf("with nothing sent %d repeats, want %d", got, freeRepeats)
	}
	for i := range int64(1000) {
		b.sent(5*second1 + i)
	}
	if got := spend(9 * second1); got != 200-freeRepeats {
		t.Errorf("after 1000 requests %d more, want %d", got, 200-freeRepeats)
	}
	if got := spend(14 * second1); got != freeRepeats {
		t.Errorf("once the first are out of the window %d more, want %d", got, freeRepeats)
	}
	if got := spend(30 * second1); got != freeRepeats {
		t.Errorf("in another window %d, want %d", got, freeRepeats)
	}
	if b.spend(60*second1, 0) {
		t.Error("a budget of nothing was spent")
	}
}

func TestAddressesAreTriedInTurn(t *testing.T) {
	g := group(t, RoundRobin, 1)
	s := g.servers[0]
	parse := func(text string) (list []netip.Addr) {
		for a := range strings.FieldsSeq(text) {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	all := parse("::1 ::2 10.0.0.1")
	show := func(now int64) string {
		return strings.Trim(fmt.Sprint(s.Order(all, now)), "[]")
	}
	for _, want := range []string{"::1 10.0.0.1 ::2", "::2 10.0.0.1 ::1"} {
		if got := show(0); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	s.Unreachable(all[0], 0)
	if got, want := show(1), "10.0.0.1 ::2 ::1"; got != want {
		t.Errorf("one is avoided: got %s, want %s", got, want)
	}
	s.Order(all, 1)
	if got, want := show(2*avoidFor), "::1 10.0.0.1 ::2"; got != want {
		t.Errorf("after its time: got %s, want %s", got, want)
	}
}

// What is known of a server stays known over a reload, also when its place in the group changes.
func TestReloadKeepsWhatIsKnown(t *testing.T) {
	var told []Change
	d := NewDirectory(Settings{FailThreshold: 1, DownTime: time.Minute}, func(c Change) { told = append(told, c) })
	d.Configure(*d.settings.Load(), []Spec{spec(Strict, 1, 1)})
	o := &remap.Origin{Group: "g"}
	d.Of(o).servers[0].Fail(0, false, errTest)
	next := spec(Strict, 1, 1)
	next.Servers[0], next.Servers[1] = next.Servers[1], next.Servers[0]
	d.Configure(*d.settings.Load(), []Spec{next})
	g := d.Of(o)
	if got := g.servers[1]; got.Host != "a" || got.State() != Down || g.servers[0].State() != Up || d.CountDown() != 1 {
		t.Errorf("after the reload a is %v and b %v", got.State(), g.servers[0].State())
	}
	if len(told) != 1 || told[0] != (Change{"g", "a:80", Up, Down, "no answer"}) {
		t.Errorf("told %+v", told)
	}
	d.Configure(*d.settings.Load(), nil)
	if d.Of(o) != nil {
		t.Error("the group is still there")
	}
}

func TestServersWithoutAGroupAreBounded(t *testing.T) {
	d := NewDirectory(Settings{FailThreshold: 1}, nil)
	of := func(i int) *Group { return d.Of(&remap.Origin{Host: fmt.Sprint("h", i), Port: 80}) }
	of(0).servers[0].Fail(0, false, errTest)
	for i := range 3 * maxAlone {
		of(i)
	}
	if len(d.alone) > maxAlone || len(d.doors) > maxAlone {
		t.Errorf("%d servers and %d doors are remembered", len(d.alone), len(d.doors))
	}
	if of(0).servers[0].State() != Down {
		t.Error("one that is down was forgotten")
	}
}

func TestHostsThatCannotBeReachedAreBounded(t *testing.T) {
	d := NewDirectory(Settings{FailThreshold: 1}, nil)
	for i := range 3 * maxAlone {
		d.Of(&remap.Origin{Host: fmt.Sprint("h", i), Port: 80}).servers[0].Fail(0, false, errTest)
	}
	if len(d.alone) > maxAlone || len(d.doors) > maxAlone {
		t.Errorf("%d servers and %d doors are remembered", len(d.alone), len(d.doors))
	}
}
