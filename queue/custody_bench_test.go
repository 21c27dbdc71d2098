package queue

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkStartKeeper is the clone with all that belongs to it, in a process
// with the heap of a test.
func BenchmarkStartKeeper(b *testing.B) {
	in, _ := socketpair(b, unix.SOCK_SEQPACKET)
	for b.Loop() {
		k, err := StartKeeper(KeeperOptions{End: int(in.Fd())})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		k.Stop()
		b.StartTimer()
	}
}

// BenchmarkHandOver is the time from SIGKILL to the last descriptor received,
// behind the notice of the process's death by futex.
func BenchmarkHandOver(b *testing.B) {
	for _, sockets := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(sockets), func(b *testing.B) {
			if limit, err := KeepLimit(); err != nil || limit < uint64(sockets)+200 {
				b.Skipf("limit of open files is %d", limit)
			}
			if err := GrowTable(sockets + 200); err != nil {
				b.Fatal(err)
			}
			var notice, first time.Duration
			for b.Loop() {
				b.StopTimer()
				p := startKept(b, unix.SOCK_SEQPACKET, sockets, "THREADS=1", "GROW=1")
				c, err := ReceiveCustody(int(p.out.Fd()), CustodyOptions{Senders: []Sender{p.keeper}})
				if err != nil {
					b.Fatal(err)
				}
				var fds []int
				b.StartTimer()
				start := time.Now()
				p.signalKill()
				if err := p.notice.Wait(WatcherStandby, 0); err != nil {
					b.Fatal(err)
				}
				notice += time.Since(start)
				for k := range c.All() {
					if fds == nil {
						first += time.Since(start)
					}
					fds = append(fds, k.FD)
				}
				b.StopTimer()
				if c.Err() != nil || len(fds) != sockets+2 {
					b.Fatal(len(fds), c.Err())
				}
				CloseAll(fds)
				p.kill()
				b.StartTimer()
			}
			b.ReportMetric(float64(notice.Microseconds())/float64(b.N), "notice-us/op")
			b.ReportMetric(float64(first.Microseconds())/float64(b.N), "first-us/op")
		})
	}
}

func BenchmarkReadProgress(b *testing.B) {
	ends, err := tcpPair()
	if err != nil {
		b.Fatal(err)
	}
	defer CloseAll([]int{ends[0].fd, ends[1].fd})
	for b.Loop() {
		if _, err := ReadProgress(ends[0].fd, Active); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJournalOfARequest is what custody adds to a request: the stores.
func BenchmarkJournalOfARequest(b *testing.B) {
	j, _ := mustJournal(b, smallShape)
	s, err := j.Ledger(0).Open(1, 0)
	if err != nil {
		b.Fatal(err)
	}
	r := RecordAt[turn](j.Pool(0))
	for b.Loop() {
		oneRequest(s, r)
	}
}
