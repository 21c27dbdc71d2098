package manager

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
)

// Custody as the estate has it: the journal, and the socketpair into which keepers send and
// out of which a successor receives. It is in force if the set holds all three, and its shape
// is that of the servers which use it: it changes with a planned restart only, since a server
// of another shape could not go on with the connections that are in it.

// custodyNames are the three; one without the others is of no use.
var custodyNames = []string{heritage.Journal, heritage.CustodyIn, heritage.CustodyOut}

// custody reports whether custody is in force.
func (e *estate) custody() bool {
	return !slices.ContainsFunc(custodyNames, func(name string) bool { _, ok := e.set.Get(name); return !ok })
}

// journal tells the journal of the set from any other, by inode; 0: custody is not in force.
func (e *estate) journal() uint64 {
	if !e.custody() {
		return 0
	}
	return journalOf(e.set)
}

func journalOf(set *heritage.Set) uint64 {
	fd, ok := set.Get(heritage.Journal)
	var st unix.Stat_t
	if !ok || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// forsake gives up what belongs to one journal, for that of a server which hands its own back.
func (e *estate) forsake() error {
	var errs []error
	for _, name := range append([]string{heritage.Cache, heritage.AccessLog}, custodyNames...) {
		errs = append(errs, e.remove(name))
	}
	return errors.Join(errs...)
}

// The pool of each loop, in bytes: what lies in a server's buffers, and what it notes of each
// connection. Memory that nobody has written costs nothing.
const (
	journalBuffers = 768 << 20
	journalNotes   = 2 << 10 // for each slot
)

// There is custody for as many loops as a server can have.
const _ = uint(queue.MaxLoops - stats.MaxLoops)

// geometry is the shape of the journal that servers with this configuration need: a slot for
// each descriptor that a loop can come to have.
func geometry(c *config.Config) queue.Geometry {
	n := loops(c)
	slots := max(descriptors(c)/n, 64) &^ 1 // whole pages of the machine
	return queue.Geometry{Loops: n, Slots: slots, Pool: journalBuffers + slots*journalNotes}
}

// maxSlots bounds the slots of all loops together.
const maxSlots = 1 << 21

// descriptors is how many connections, of clients and to origins, a server can have.
func descriptors(c *config.Config) int {
	if n := c.Limits.Connections; n != 0 {
		return min(2*n+256, maxSlots)
	}
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		lim.Cur = 1024
	}
	// Loops do not have equal shares.
	return int(min(2*lim.Cur, maxSlots))
}

// shape reads the journal of the set.
func (e *estate) shape() (queue.Geometry, error) {
	fd, ok := e.set.Get(heritage.Journal)
	if !ok {
		return queue.Geometry{}, errors.New("no journal")
	}
	j, err := queue.OpenJournal(fd)
	if err != nil {
		return queue.Geometry{}, err
	}
	defer j.Close()
	return j.Geometry(), nil
}

// provideCustody makes what custody needs, or does away with it, as the configuration says.
// renew: what was kept is of no use to the next server in any case. Where it cannot be made,
// the instance goes on without it, and says so.
func (e *estate) provideCustody(c *config.Config, renew bool, log zerolog.Logger) error {
	want := c.Custody.Enabled
	if want && e.custody() && !renew {
		old, err := e.shape()
		switch {
		case err != nil:
			log.Error().Err(err).Msg("journal begins anew")
		case old.Loops == loops(c):
			return e.provideAccessLog(old.Loops)
		default:
			log.Info().Int("old_loops", old.Loops).Int("loops", loops(c)).Msg("journal begins anew")
		}
	}
	for _, name := range append([]string{heritage.AccessLog}, custodyNames...) {
		if err := e.setAside(name); err != nil {
			return err
		}
	}
	if !want {
		return nil
	}
	if err := e.makeCustody(geometry(c)); err != nil {
		log.Error().Err(err).Msg("no custody")
		for _, name := range custodyNames {
			if err := e.remove(name); err != nil {
				return err
			}
		}
		return nil
	}
	return e.provideAccessLog(loops(c))
}

// What the access log has on its way to its file belongs to the journal: two servers that do not share the one do not
// share the other. Memory that nobody has written costs nothing.
const (
	accessLogFixed = 512 << 10
	accessLogRing  = 4 << 20 // for each loop: lines of a quarter of a second at 100,000 requests a second
)

// provideAccessLog makes the memory of the access log. One that is there is used.
func (e *estate) provideAccessLog(loops int) error {
	if _, ok := e.set.Get(heritage.AccessLog); ok {
		return nil
	}
	fd, err := makeMemory("trafficd-accesslog", int64(accessLogFixed+loops*accessLogRing))
	if err != nil {
		return fmt.Errorf("make memory of the access log: %w", err)
	}
	defer unix.Close(fd)
	return e.put(heritage.AccessLog, fd)
}

func (e *estate) makeCustody(g queue.Geometry) error {
	journal, err := queue.NewJournal(g)
	if err != nil {
		return err
	}
	defer unix.Close(journal) // the set has its own copy
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make custody: socketpair: %w", err)
	}
	defer queue.CloseAll(pair[:])
	return errors.Join(e.put(heritage.Journal, journal), e.put(heritage.CustodyIn, pair[0]), e.put(heritage.CustodyOut, pair[1]))
}

// standing is the configuration of a server that is to go on with what the present one has: c,
// but for what cannot change under custody. That is what comes into force with a planned
// restart only.
func (e *estate) standing(c *config.Config) *config.Config {
	g, err := e.shape()
	if !e.custody() || err != nil {
		return c
	}
	s := *c
	s.Custody.Enabled = true
	if loops(c) != g.Loops {
		s.Threads = g.Loops
	}
	s.Cache.Size = 0
	if fd, ok := e.set.Get(heritage.Cache); ok {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			s.Cache.Size = st.Size
		}
	}
	if s.Cache.Size > 0 {
		s.Cache.MaxObjectSize = min(s.Cache.MaxObjectSize, s.Cache.Size)
	}
	if names := e.listening(c); len(names) > 0 {
		s.Listen = names
	}
	return &s
}

// listening are the addresses of the listeners there are, in the order of the configuration;
// none if they are those of the configuration.
func (e *estate) listening(c *config.Config) []string {
	var list []string
	same := 0
	for _, addr := range c.Listen {
		if _, ok := e.set.Get(listenerName(addr)); ok {
			list, same = append(list, addr), same+1
		}
	}
	for _, name := range e.set.Names() {
		addr, ok := strings.CutPrefix(name, heritage.ListenerPrefix)
		if ok && !e.isAutoconf(name, c) && !slices.ContainsFunc(c.Listen, func(a string) bool { return listenerName(a) == name }) {
			list = append(list, addr)
		}
	}
	if same == len(c.Listen) && len(list) == same {
		return nil
	}
	return list
}

// setAside takes out of the set what the next server shall not have, while the present one
// goes on with it: if the next one fails, restore puts it back.
func (e *estate) setAside(name string) error {
	fd, ok := e.set.Take(name)
	if !ok {
		return nil
	}
	e.changed = true
	if e.former == nil {
		e.former = heritage.New()
	}
	if _, ok := e.former.Get(name); ok {
		// What is there is what the present server has; this one nobody has used.
		return unix.Close(fd)
	}
	return e.former.Put(name, fd)
}

// reshaped reports whether the present server has a journal that the next one shall not have.
func (e *estate) reshaped() bool {
	return e.former != nil && journalOf(e.former) != 0
}

// settle lets go of what was set aside: the next server is the present one now.
func (e *estate) settle() error {
	if e.former == nil {
		return nil
	}
	err := e.former.Close()
	e.former = nil
	return err
}

// restore puts back what was set aside.
func (e *estate) restore() error {
	if e.former == nil {
		return nil
	}
	var errs []error
	names := e.former.Names()
	if slices.Contains(names, heritage.Journal) || slices.Contains(names, heritage.Cache) {
		for _, name := range append([]string{heritage.AccessLog}, custodyNames...) {
			errs = append(errs, e.remove(name)) // the new ones, if there were any
		}
	}
	for _, name := range names {
		fd, _ := e.former.Take(name)
		errs = append(errs, e.remove(name), e.set.Put(name, fd))
	}
	e.former, e.changed = nil, true
	return errors.Join(errs...)
}
