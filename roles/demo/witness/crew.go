package witness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Options are the same for all clients of a run.
type Options struct {
	Addr   string  // of the proxy, host:port
	Origin *Origin // behind it
	Seed   uint64  // that of the origin

	Patience   time.Duration // without progress, before that is a failure; 0: 10 s
	Think      time.Duration // between two requests of a client, about; 0: 20 ms
	IdleEvery  time.Duration // between two requests of an idle client, about; 0: 3 s
	ProbeEvery time.Duration // between two requests of a probe; 0: 1 ms

	RoundEvery time.Duration // between two objects that collapsed clients ask for; 0: 1 s
	TunnelTime time.Duration // that a tunnel lasts, about; 0: 4 s

	Rate      int   // bytes a second of each slow transfer; 0: 2 MB
	Large     int64 // bytes of a large object; 0: 4 MB. All of them must find room in the cache
	MaxUpload int64 // bytes of the largest upload; 0: 20 MB
}

func (o Options) withDefaults() Options {
	orElse(&o.Patience, 10*time.Second)
	orElse(&o.Think, 20*time.Millisecond)
	orElse(&o.IdleEvery, 3*time.Second)
	orElse(&o.ProbeEvery, time.Millisecond)
	orElse(&o.RoundEvery, time.Second)
	orElse(&o.TunnelTime, 4*time.Second)
	orElse(&o.Rate, 2<<20)
	orElse(&o.Large, 4<<20)
	orElse(&o.MaxUpload, 20<<20)
	return o
}

func orElse[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Mix is how many clients of each kind there are.
type Mix map[Kind]int

// Everybody is a mix with every kind in it, for a machine with one core.
func Everybody() Mix {
	return Mix{
		KeepAlive: 3, NewConn: 1, Download: 2, Plain: 1, FromChunked: 1, FromClose: 1, Range: 1, Pipeline: 1, Dribble: 2,
		Upload: 1, UploadChunked: 1, Expect: 1, Early: 1, Tunnel: 2, Idle: 20, ProbeNew: 1, ProbeKept: 1, Conditional: 1,
		Collapsed: 4, Connect: 2,
	}
}

// Crew is the clients of one run.
type Crew struct {
	opts    Options
	clients []*Client // by kind
}

// NewCrew makes the clients of a mix.
func NewCrew(mix Mix, opts Options) *Crew {
	c := &Crew{opts: opts.withDefaults()}
	for _, kind := range Kinds() {
		for i := range mix[kind] {
			c.clients = append(c.clients, NewClient(kind, i, c.opts))
		}
	}
	return c
}

// Warm fetches every object that is to be in the cache, once, so that a later
// fetch of one is known to be one too many. The proxy must be serving.
func (c *Crew) Warm(ctx context.Context) error {
	k := NewClient(KeepAlive, -1, c.opts)
	defer k.drop()
	for _, obj := range c.opts.cached() {
		k.get(ctx, obj, 0)
		if f := k.tally.Failures(); len(f) > 0 {
			return fmt.Errorf("warm the cache: %s", f[0])
		}
		if ctx.Err() != nil {
			return errors.Join(errors.New("warm the cache"), context.Cause(ctx))
		}
	}
	return nil
}

// Run lets all clients live until ctx ends and they have finished and checked
// what was under way then.
func (c *Crew) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, k := range c.clients {
		wg.Go(func() { k.Run(ctx) })
	}
	wg.Wait()
}

// The objects that are hot: in the cache before anybody dies, and fetched once.
const (
	smallObjects = 16
	largeObjects = 3
	hotFor       = 24 * 3600 // seconds
)

func (o *Options) small(n int) Object {
	n %= smallObjects
	return Object{Number: uint64(1 + n), Size: int64(1) << (n % 8 * 2), MaxAge: hotFor} // 1 byte to 16 KiB
}

func (o *Options) large(n int) Object {
	return Object{Number: uint64(101 + n%largeObjects), Size: o.Large + int64(n%largeObjects), MaxAge: hotFor}
}

// asking is an object that is stored but has to be asked about each time.
func (o *Options) asking() Object { return Object{Number: 201, Size: 5000, MaxAge: Revalidate} }

// behind is an object that is served stale while it is asked about.
func (o *Options) behind() Object { return Object{Number: 202, Size: 70_000, MaxAge: Behind} }

func (o *Options) cached() []Object {
	all := []Object{o.asking(), o.behind()}
	for n := range smallObjects {
		all = append(all, o.small(n))
	}
	for n := range largeObjects {
		all = append(all, o.large(n))
	}
	return all
}
