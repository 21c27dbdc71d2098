package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"trafficd/roles/demo/witness"
	"trafficd/roles/internal/exitcode"
)

// shownFailures is how many failures are listed at the end. All are in a file.
const shownFailures = 20

// run is one "demo crash".
type run struct {
	opts   options
	out    io.Writer
	i      *instance
	crew   *witness.Crew
	killer *killer
	stats  *counters

	begun time.Time // when the first kill may come
	ended time.Time // when the last one could; zero: it still can

	aborted atomic.Bool // we have killed the instance: what clients see now is our doing
}

// crash is the command. Its error is what is wrong, if anything is.
func crash(ctx context.Context, o options, out *os.File) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	again, unlisten := listen(stop)
	defer unlisten()

	origin, err := witness.NewOrigin("127.0.0.1:0", o.seed)
	if err != nil {
		return err
	}
	defer origin.Close()
	i, err := startInstance(ctx, origin.URL(), o.threads)
	if i == nil {
		return err
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%w; its log is %s", err, i.log()), i.stop())
	}
	r := &run{opts: o, out: out, i: i, killer: newKiller(i, o), stats: &counters{}}
	r.crew = witness.NewCrew(witness.Everybody(), witness.Options{Addr: i.addr, Origin: origin, Seed: o.seed, MaxUpload: 8 << 20, ProbeEvery: 2 * time.Millisecond})
	finished := make(chan error, 1)
	v := newView(out)
	go func() { finished <- r.run(ctx, v) }()
	select {
	case err := <-finished:
		return err
	case <-again:
		r.aborted.Store(true)
		n := i.killAll()
		v.end()
		return exitcode.Errorf(exitcode.Failed, "interrupted twice: %d processes were killed, %s is left", n, i.dir)
	}
}

// listen has the first signal call stop and the second close the channel.
func listen(stop func()) (again <-chan struct{}, unlisten func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// That the reader of our output has gone must be an error of a write and not our
	// end: the instance has to be stopped. The signal itself says nothing; each
	// connection that breaks brings one.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	twice := make(chan struct{})
	go func() {
		n := 0
		for range signals {
			if n++; n == 2 {
				close(twice)
			}
			stop()
		}
	}()
	return twice, func() {
		signal.Stop(signals)
		signal.Stop(pipes)
		close(signals)
	}
}

func (r *run) run(ctx context.Context, v *view) error {
	warm := r.crew.Warm(ctx)
	if warm == nil {
		r.watch(ctx, v)
	}
	unclean := r.i.stop()
	report := r.crew.Report()
	if r.aborted.Load() {
		return nil // crash says what there is to say
	}
	if warm != nil && ctx.Err() == nil {
		return errors.Join(fmt.Errorf("%w; the log is %s", warm, r.i.log()), unclean)
	}
	r.writeTable(report)
	return r.verdict(report, unclean)
}

// watch lets killer and clients live, shows them, and returns when the last
// client has finished.
func (r *run) watch(ctx context.Context, v *view) {
	killing, cancel := context.WithTimeout(ctx, r.opts.duration)
	defer cancel()
	var wg sync.WaitGroup
	r.begun = time.Now()
	wg.Go(func() {
		defer cancel() // without an instance there is nothing to see
		r.killer.run(killing)
	})
	asking, stopAsking := context.WithCancel(context.Background())
	var asked sync.WaitGroup
	asked.Go(func() { r.stats.follow(asking, r.i.client) })
	wg.Go(func() { r.crew.Run(killing) })
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	r.show(killing, cancel, v, done)
	stopAsking()
	asked.Wait()
	r.stats.read(context.Background(), r.i.client)
}

// show draws until done. If there is nobody left to see it, it calls enough.
func (r *run) show(killing context.Context, enough func(), v *view, done <-chan struct{}) {
	t := time.NewTicker(v.every)
	defer t.Stop()
	over := killing.Done()
	for {
		select {
		case <-t.C:
		case <-over:
			r.ended, over = time.Now(), nil
		case <-done:
			v.draw(r.scene())
			v.end()
			return
		}
		if v.draw(r.scene()) != nil {
			enough()
		}
	}
}

// verdict is nil if everything is as it must be, and else what is not. Then the
// directory stays.
func (r *run) verdict(report witness.Report, unclean error) error {
	var wrong []error
	if n := report.Failed(); n > 0 {
		wrong = append(wrong, fmt.Errorf("%d failures", n))
	}
	if report.Total.Requests == 0 {
		wrong = append(wrong, errors.New("not one request was answered, so nothing was shown"))
	}
	if unclean != nil {
		wrong = append(wrong, fmt.Errorf("stop the instance: %w", unclean))
	}
	if err := r.killer.err; err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) == 0 && !r.opts.keepDir {
		return r.i.remove()
	}
	list := filepath.Join(r.i.dir, "failures")
	if err := writeFile(list, func(w io.Writer) error { return report.Write(w, len(report.Failures)) }); err != nil {
		wrong = append(wrong, err)
	}
	fmt.Fprintf(r.out, "\nthe instance's log: %s\nthe report with all failures: %s\n", r.i.log(), list)
	return exitcode.With(exitcode.Failed, errors.Join(wrong...))
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
