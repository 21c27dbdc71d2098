package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"trafficd/e2e/harness"
	"trafficd/roles/demo/witness"
)

// A victim is who is killed at one instant.
type victim struct {
	roles  []harness.Role
	weight int  // how often, among the others
	second bool // the one that takes over is killed as well, as soon as it has begun
}

func (v victim) String() string {
	var names []string
	for _, r := range v.roles {
		names = append(names, string(r))
	}
	text := strings.Join(names, "+")
	if v.second {
		text += ", and the next"
	}
	return text
}

func (v victim) has(r harness.Role) bool { return slices.Contains(v.roles, r) }

func killing(weight int, roles ...harness.Role) victim { return victim{roles: roles, weight: weight} }

// Each role and each pair that can be survived. What is not here is the limit that is
// written down: the server and its keeper within the same moment, and cop, manager, server and
// standby all at once.
var victims = []victim{
	killing(40, harness.Server),
	{roles: []harness.Role{harness.Server}, weight: 12, second: true},
	killing(8, harness.Manager),
	killing(8, harness.Cop),
	killing(8, harness.Standby),
	killing(8, harness.Keeper),
	killing(6, harness.Manager, harness.Server),
	killing(4, harness.Cop, harness.Manager),
	killing(4, harness.Cop, harness.Server),
	killing(4, harness.Server, harness.Standby),
	killing(4, harness.Keeper, harness.Standby),
	killing(2, harness.Cop, harness.Manager, harness.Server),
}

// A campaign kills one instance's processes at random.
type campaign struct {
	t       *testing.T
	p       *harness.Trafficd
	rng     *rand.Rand
	victims []victim
	pause   time.Duration // between two kills, about, beyond what the instance needs

	kills  int            // processes
	counts map[string]int // by victim
}

func newCampaign(t *testing.T, p *harness.Trafficd, seed uint64, victims []victim, pause time.Duration) *campaign {
	return &campaign{t: t, p: p, rng: rand.New(rand.NewPCG(seed, 7)), victims: victims, pause: pause, counts: map[string]int{}}
}

// run kills until so many processes are dead.
func (c *campaign) run(kills int) {
	for c.kills < kills {
		c.strike(c.choose())
	}
}

func (c *campaign) choose() victim {
	sum := 0
	for _, v := range c.victims {
		sum += v.weight
	}
	n := c.rng.IntN(sum)
	for _, v := range c.victims {
		if n -= v.weight; n < 0 {
			return v
		}
	}
	panic("unreachable")
}

// strike waits until the instance has what it needs to survive, lets a random time pass, and
// kills.
func (c *campaign) strike(v victim) {
	c.await(v).release()
	wait(time.Duration(c.rng.ExpFloat64() * float64(c.pause)))
	at := c.await(v)
	defer at.release()
	c.kills += c.p.Strike(at.targets...)
	c.counts[v.String()]++
	if v.second {
		c.strikeNext(at)
	}
}

// strikeNext kills the standby as it takes over: at any moment from the death on, or at any
// from the instant when it has the lock.
func (c *campaign) strikeNext(at scene) {
	if c.rng.IntN(2) == 0 {
		c.p.WaitTaken(at.server.PID, time.Second)
	}
	wait(time.Duration(c.rng.Int64N(int64(5 * time.Millisecond))))
	c.kills += c.p.Strike(at.standby)
}

// wait lets a time pass: when a process is killed is left to chance.
func wait(d time.Duration) { <-time.After(d) }

// A scene is who there is.
type scene struct {
	server, keeper, standby, manager, cop *harness.Process
	targets                               []*harness.Process
}

func (s scene) all() []*harness.Process {
	return []*harness.Process{s.server, s.keeper, s.standby, s.manager, s.cop}
}

func (s scene) release() {
	for _, h := range s.all() {
		if h != nil {
			h.Release()
		}
	}
}

// await waits until those who are to be killed are there, and those without whom that would be
// more than a single fault.
func (c *campaign) await(v victim) scene {
	var at scene
	harness.WaitFor(c.t, "what it needs to survive the death of "+v.String(), func() bool {
		at.release()
		at = scene{}
		return at.look(c.p, v)
	})
	for _, r := range v.roles {
		at.targets = append(at.targets, at.role(r))
	}
	return at
}

func (s *scene) role(r harness.Role) *harness.Process {
	return map[harness.Role]*harness.Process{
		harness.Server: s.server, harness.Keeper: s.keeper, harness.Standby: s.standby, harness.Manager: s.manager, harness.Cop: s.cop,
	}[r]
}

func (s *scene) look(p *harness.Trafficd, v victim) bool {
	if s.server = p.Find(harness.Server); s.server == nil {
		return false
	}
	if s.keeper = p.Find(harness.Keeper); s.keeper == nil {
		return false
	}
	for role, to := range map[harness.Role]**harness.Process{harness.Manager: &s.manager, harness.Cop: &s.cop} {
		if *to = p.Find(role); *to == nil && v.has(role) {
			return false
		}
	}
	if v.has(harness.Server) || v.has(harness.Standby) {
		if s.standby = p.Find(harness.Standby); s.standby == nil {
			return false
		}
	}
	// Without both servers the manager is all there is, and it must have the heritage.
	if v.has(harness.Server) && v.has(harness.Standby) || v.second {
		return s.manager != nil && p.Log.Said(harness.Manager, "manager ready", s.manager.PID)
	}
	return true
}

func (c *campaign) report() string {
	var parts []string
	for _, v := range c.victims {
		parts = append(parts, fmt.Sprintf("%s %d", v, c.counts[v.String()]))
	}
	return fmt.Sprintf("%d processes killed: %s", c.kills, strings.Join(parts, "; "))
}

// states are what a connection is found in at random instants. Between accept and the first note lie some instructions, where it
// hardly ever is: TestKilledAtEveryStep dies there on purpose.
var states = []string{"idle", "head", "waiting", "upload", "reply", "tunnel", "closing"}

// crowd is every kind of client, and more of those who open connections, whose moments are
// the shortest.
func crowd() witness.Mix {
	mix := witness.Everybody()
	mix[witness.NewConn], mix[witness.ProbeNew], mix[witness.Early] = 4, 2, 2
	return mix
}

// "At least 1,000 kills in CI at random times": each role, and each pair that can be survived,
// while clients of all kinds compare every byte. Nobody notices anything: no failure, no idle
// connection lost, nothing fetched again, no upload twice.
//
// The time between two kills is random, and no longer than the instance needs to have a keeper and a
// standby again; some servers are killed while they are taking over from one that was killed.
func TestAThousandKills(t *testing.T) {
	kills := 1000
	if harness.Race() || testing.Short() {
		kills = 160
	}
	adopted := harness.Adopted{}
	results := make(chan func(), 2)
	t.Run("instances", func(t *testing.T) {
		for i, threads := range []string{"1", "2"} {
			t.Run(threads+" threads", func(t *testing.T) {
				t.Parallel()
				seed := rand.Uint64N(1 << 32)
				t.Logf("seed %d", seed)
				s := harness.SetStage(t, crowd(), witness.Options{Seed: seed}, harness.Args("--threads", threads))
				c := newCampaign(t, s.Trafficd, seed, victims, 40*time.Millisecond)
				began := time.Now()
				r := s.Play(func() {
					defer reluctant(t, s.Addr)()
					c.run((kills + i) / 2)
				})
				t.Logf("%s, in %v; worst probe %s", c.report(), time.Since(began).Round(time.Second), witness.Short(harness.WorstProbe(r)))
				s.Terminate()
				all := s.Adopted()
				results <- func() { adopted.Add(all) }
			})
		}
	})
	close(results)
	for add := range results {
		add()
	}
	missing := adopted.Missing(states...)
	if len(missing) > 0 && !t.Failed() {
		t.Run("until each state was hit", func(t *testing.T) { adopted.Add(killUntilHit(t, missing)) })
	}
	for _, state := range adopted.States() {
		t.Logf("adopted: %7d %s", adopted[state], state)
	}
	if missing := adopted.Missing(states...); len(missing) > 0 && !t.Failed() {
		t.Errorf("no connection was ever adopted in these states: %s", strings.Join(missing, ", "))
	}
}

// reluctant is a client that is refused, and then does not close: its connection is one that the server has ended nearly
// all the time. Those of the other clients are for microseconds. The function returned ends it.
func reluctant(t *testing.T, addr string) (stop func()) {
	stopped, gone := make(chan struct{}), make(chan struct{})
	refused := func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(harness.Patience))
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n"); err != nil { // without Host
			return err
		}
		if b, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) {
			return fmt.Errorf("%q, %v; want 400 and the end", b, err)
		}
		select {
		case <-stopped:
		case <-time.After(2 * time.Second): // the server waits for longer
		}
		return nil
	}
	go func() {
		defer close(gone)
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if err := refused(); err != nil {
				t.Errorf("a client that is refused: %v", err)
				return
			}
		}
	}()
	return func() { close(stopped); <-gone }
}

// killUntilHit kills servers until the states have been seen, too: some last for microseconds only, and chance may
// have passed them by. The clients are those that go through them most often.
func killUntilHit(t *testing.T, missing []string) harness.Adopted {
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d; missing: %s", seed, strings.Join(missing, ", "))
	mix := crowd()
	mix[witness.NewConn], mix[witness.ProbeNew], mix[witness.Early], mix[witness.Tunnel] = 8, 8, 4, 4
	s := harness.SetStage(t, mix, witness.Options{Seed: seed, ProbeEvery: time.Millisecond}, harness.Args("--threads", "2"))
	c := newCampaign(t, s.Trafficd, seed, victims[:2], 5*time.Millisecond)
	s.Play(func() {
		defer reluctant(t, s.Addr)()
		for range 50 {
			c.run(c.kills + 20)
			if len(s.Adopted().Missing(missing...)) == 0 {
				return
			}
		}
	})
	t.Log(c.report())
	return s.Adopted()
}
