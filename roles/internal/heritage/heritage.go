package heritage

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"trafficd/queue"
)

// The names of what an instance has one of.
const (
	Stats    = "stats"     // memfd: counters and progress cells
	Cache    = "cache"     // memfd: the cache
	QueueIn  = "queue.in"  // sending end of the manager's connection FIFO
	QueueOut = "queue.out" // receiving end of it

	Journal    = "journal"     // memfd: the journal of the connections (package queue)
	CustodyIn  = "custody.in"  // keepers send descriptors into it
	CustodyOut = "custody.out" // a successor receives them from it
	AccessLog  = "accesslog"   // memfd: lines of the access log on their way to the file
)

// ListenerPrefix begins the name of every listening socket; the canonical
// address (queue.ListenerName) follows.
const ListenerPrefix = "listener:"

// MaxDescriptors is how many a Set may hold: what fits into one link message.
const MaxDescriptors = queue.MaxFDs

const maxName = 256

// Set is a named set of descriptors, owned by the Set from Put until Take,
// Remove or Close. Safe for concurrent use.
type Set struct {
	mu  sync.Mutex
	fds map[string]int // guarded by mu
}

// New makes an empty Set.
func New() *Set { return &Set{fds: make(map[string]int)} }

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("heritage: name of %d bytes, want 1 to %d", len(name), maxName)
	}
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("heritage: name %q has control characters", name)
		}
	}
	return nil
}

// Put adds fd under name. The Set owns it on success; on an error it stays the
// caller's. A name that is taken is an error: replacing a listener by accident
// would lose the connections queued in it.
func (s *Set) Put(name string, fd int) error {
	if err := checkName(name); err != nil {
		return err
	}
	if fd < 0 {
		return fmt.Errorf("heritage: put %s: descriptor %d", name, fd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.fds[name]; taken {
		return fmt.Errorf("heritage: put %s: name is taken", name)
	}
	if len(s.fds) >= MaxDescriptors {
		return fmt.Errorf("heritage: put %s: holds %d descriptors already", name, len(s.fds))
	}
	s.fds[name] = fd
	return nil
}

// PutDup adds a duplicate (close-on-exec) of fd, which stays the caller's.
func (s *Set) PutDup(name string, fd int) error {
	dup, err := duplicate(fd)
	if err != nil {
		return fmt.Errorf("heritage: put %s: %w", name, err)
	}
	if err := s.Put(name, dup); err != nil {
		unix.Close(dup)
		return err
	}
	return nil
}

func duplicate(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	return dup, nil
}

// Get returns the descriptor called name. It stays the Set's: valid until
// Take, Remove or Close.
func (s *Set) Get(name string) (fd int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd, ok = s.fds[name]
	return fd, ok
}

// GetDup returns a duplicate (close-on-exec), the caller's to close.
func (s *Set) GetDup(name string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd, ok := s.fds[name]
	if !ok {
		return -1, fmt.Errorf("heritage: no descriptor called %s", name)
	}
	dup, err := duplicate(fd)
	if err != nil {
		return -1, fmt.Errorf("heritage: %s: %w", name, err)
	}
	return dup, nil
}

// Take removes the descriptor called name and gives it to the caller.
func (s *Set) Take(name string) (fd int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd, ok = s.fds[name]
	delete(s.fds, name)
	return fd, ok
}

// Remove closes the descriptor called name, if there is one.
func (s *Set) Remove(name string) error {
	fd, ok := s.Take(name)
	if !ok {
		return nil
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("heritage: close %s: %w", name, err)
	}
	return nil
}

// Names lists the names, sorted.
func (s *Set) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.namesLocked()
}

func (s *Set) namesLocked() []string { return slices.Sorted(maps.Keys(s.fds)) }

// Len is the number of descriptors.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fds)
}

// Listeners maps the address of every listener, as named, to its descriptor.
// They stay the Set's.
func (s *Set) Listeners() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string]int)
	for name, fd := range s.fds {
		if addr, ok := strings.CutPrefix(name, ListenerPrefix); ok {
			m[addr] = fd
		}
	}
	return m
}

// Dup makes a Set of duplicates with the same names.
func (s *Set) Dup() (*Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := New()
	for name, fd := range s.fds {
		if err := c.PutDup(name, fd); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Merge moves from o what s has no name for, closes the rest of o, and returns
// the names moved, sorted. s wins: what this process holds is what its clients
// are queued in. What does not fit into s is closed with the rest, and an error.
func (s *Set) Merge(o *Set) (added []string, err error) {
	for _, name := range o.Names() {
		if _, have := s.Get(name); have {
			continue
		}
		fd, ok := o.Take(name)
		if !ok {
			continue
		}
		if putErr := s.Put(name, fd); putErr != nil {
			err = errors.Join(err, putErr, unix.Close(fd))
			continue
		}
		added = append(added, name)
	}
	return added, errors.Join(err, o.Close())
}

// Close closes every descriptor; the Set is empty after it, and usable.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for name, fd := range s.fds {
		if closeErr := unix.Close(fd); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("heritage: close %s: %w", name, closeErr))
		}
		delete(s.fds, name)
	}
	return err
}

var _ io.Closer = (*Set)(nil)

// Export prepares passing the Set by exec: files are duplicates in the order
// of Names, to be given to the child as descriptors first, first+1, …; env is
// the environment entry that tells the child so. The caller closes files once
// the child is started.
func (s *Set) Export(first int) (files []*os.File, env string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []item
	for i, name := range s.namesLocked() {
		dup, err := duplicate(s.fds[name])
		if err != nil {
			CloseFiles(files)
			return nil, "", fmt.Errorf("heritage: pass on %s: %w", name, err)
		}
		files = append(files, os.NewFile(uintptr(dup), name))
		list = append(list, item{name, first + i})
	}
	return files, EnvVar + "=" + format(list), nil
}

// Stay prepares passing the Set to another program in this process (execve(2)): the descriptors stay
// what they are, and env tells their numbers. Withdraw takes that back.
func (s *Set) Stay() (env string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []item
	for _, name := range s.namesLocked() {
		if _, err := unix.FcntlInt(uintptr(s.fds[name]), unix.F_SETFD, 0); err != nil {
			return "", fmt.Errorf("heritage: pass on %s: %w", name, err)
		}
		list = append(list, item{name, s.fds[name]})
	}
	return EnvVar + "=" + format(list), nil
}

// Withdraw undoes Stay.
func (s *Set) Withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.fds {
		unix.CloseOnExec(fd)
	}
}

// CloseFiles closes the files of an Export.
func CloseFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
