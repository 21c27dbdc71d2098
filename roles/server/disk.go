package server

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/disk"
	"trafficd/roles/server/header"
	"trafficd/roles/server/transaction"
)

// The cache on disk is opened by the server that has server.lock, before anything is looked up, and closed by
// one that ends in order or hands its listeners to another. Without it, for whatever reason, everything else works: the
// reason is logged once, and counted. No server ends for want of it; a path that is wrong is refused before there is one
// (config.CheckPaths).

// diskDir is where the cache on disk is; "": nowhere. explicit: somebody has named it.
func diskDir(c *config.Config, root runroot.Root) (dir string, explicit bool) {
	switch {
	case !c.Cache.OnDisk():
		return "", false
	case c.Cache.DiskPath != "":
		return c.Cache.DiskPath, true
	case root.Dir() != runroot.Default():
		return filepath.Join(root.Dir(), "cache"), false
	case os.Geteuid() == 0:
		return "/var/cache/trafficd", false
	}
	if caches, err := os.UserCacheDir(); err == nil {
		return filepath.Join(caches, "trafficd"), false
	}
	return "", false
}

// Kinds of file systems that are memory themselves.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// diskSize is how large the store may be; 0: there is to be none. Where nobody has named a directory the file system is not filled up, and memory is not
// spent twice. keep: a store that is there is taken as it is, since there is no room for the one that is configured.
func (s *Server) diskSize(c *config.Config, dir string, explicit bool) (size int64, keep bool) {
	size = c.Cache.DiskSize
	if explicit {
		return size, false
	}
	var st unix.Statfs_t
	at := dir
	for unix.Statfs(at, &st) == unix.ENOENT && at != filepath.Dir(at) {
		at = filepath.Dir(at)
	}
	if st.Type == tmpfsMagic || st.Type == ramfsMagic {
		s.log.Info().Str("directory", dir).Msg("no cache on disk: the directory is in memory; name it with cache.disk_path to have one all the same")
		return 0, false
	}
	free, taken := int64(st.Bavail)*st.Bsize, disk.Size(dir)
	switch {
	case free+taken >= size+size/10:
		return size, false
	case taken > 0:
		return size, true
	}
	log := s.log.Warn().Str("directory", dir).Int64("bytes", size).Int64("free", free)
	if size = free / 2 &^ (1<<20 - 1); size < leastDisk {
		log.Msg("no cache on disk: too little space is left")
		return 0, false
	}
	log.Int64("taken", size).Msg("cache on disk is smaller than configured: too little space is left")
	return size, false
}

// leastDisk is the smallest store that is made of what little space is left.
const leastDisk = 64 << 20

// openDisk opens the cache on disk, and returns the seed of its keys; zero without one. pid and start tell the server before this one.
func (s *Server) openDisk(c *config.Config, pid int, start uint64) (seed [2]uint64) {
	dir, explicit := diskDir(c, s.root)
	if dir == "" {
		return seed
	}
	size, keep := s.diskSize(c, dir, explicit)
	if size == 0 {
		return seed
	}
	o := disk.Options{
		Dir: dir, Size: size, Keep: keep, Threads: c.Cache.DiskThreads, Labels: purgeLabels,
		Stats: s.bank.Row(0), Log: s.log,
	}
	if o.Threads == 0 {
		o.Threads = 4
	}
	o.Seed, _ = cache.SeedOf(s.memory)
	if before, err := proc.Adopt(pid, start); pid != 0 && err == nil {
		o.Gone = before.Done()
	}
	began := time.Now()
	d, err := openPatiently(o, pid == 0)
	if err != nil {
		log := s.log.Warn()
		if errors.Is(err, disk.ErrForeign) || explicit {
			log = s.log.Error()
		}
		s.bank.Row(0).Inc(stats.DiskErrors)
		s.noDisk.Store(&disk.Trouble{Since: time.Now(), Off: true, Reason: err.Error()})
		log.Err(err).Msg("no cache on disk")
		return seed
	}
	s.disk = d
	warmed := make(chan struct{})
	go func() {
		d.WarmUp()
		close(warmed)
	}()
	if pid == 0 && !d.Warm() { // nobody waits for us yet
		select {
		case <-warmed:
		case <-time.After(warmWait):
		}
	}
	s.log.Debug().Str("directory", dir).Int64("bytes", size).Dur("took", time.Since(began)).Msg("cache on disk opened")
	return d.Seed()
}

// How long the lock of the directory may be held: a process that was killed lets go of it last of all, when its memory has
// been torn down. In a take-over its keeper has done so before.
const (
	lockWaitCold = 2 * time.Second
	lockWaitWarm = 20 * time.Millisecond
)

// warmWait is how long a server that is started waits for an index that is not in memory yet, after the
// machine was. Until it is nothing is found on disk.
const warmWait = 50 * time.Millisecond

// openPatiently opens the store, and waits a little for who has it to let go of it.
func openPatiently(o disk.Options, cold bool) (*disk.Store, error) {
	wait := lockWaitWarm
	if cold {
		wait = lockWaitCold
	}
	for limit := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		d, err := disk.Open(o)
		if !errors.Is(err, disk.ErrInUse) || time.Now().After(limit) {
			return d, err
		}
	}
}

// closeDisk ends the cache on disk: another server may open it then.
func (s *Server) closeDisk() {
	if s.disk == nil {
		return
	}
	if err := s.disk.Close(); err != nil {
		s.log.Warn().Err(err).Msg("close the cache on disk")
	}
}

// diskTrouble is what is wrong with the cache on disk; nil: nothing, or there is to be none. The cache has been opened.
func (s *Server) diskTrouble() *disk.Trouble {
	if s.disk == nil {
		return s.noDisk.Load()
	}
	return s.disk.Trouble()
}

// tierBelow is the disk as the transactions see it; nil without one.
func (s *Server) tierBelow() transaction.Disk {
	if s.disk == nil {
		return nil
	}
	return s.disk
}

// lockDescriptors are those of the locks that must not outlive the process.
func (s *Server) lockDescriptors() []int {
	var fds []int
	if s.disk != nil {
		fds = append(fds, s.disk.LockDescriptors()...) // first: who gets the server's lock opens the disk next
	}
	return append(fds, s.custody.lock.Descriptors()...)
}

// purgeLabels appends the lines of a stored head by which responses are purged.
func purgeLabels(b, head []byte) []byte {
	for len(head) > 0 {
		line := head
		if i := bytes.IndexByte(head, '\n'); i >= 0 {
			line = head[:i+1]
		}
		head = head[len(line):]
		name, _, _ := bytes.Cut(line, colon)
		if header.EqualFold(name, "Surrogate-Key") || header.EqualFold(name, "Cache-Tag") {
			b = append(b, line...)
		}
	}
	return b
}

var colon = []byte(":")
