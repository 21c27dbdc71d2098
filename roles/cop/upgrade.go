package cop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/lockfile"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/supervise"
)

// The upgrade. Cop conducts it, since it outlives the others, and is the last to change: by
// execve(2) in its own process, so that its PID, which init or systemd knows, its children
// and its lock stay what they are. The manager has tried the executable before it asks.
//
//	server        the manager does it, and says what came of it
//	manager       the old one leaves, the next is started from the new executable
//	probation     and has to live for upgrade.probation; or the old executable is started again
//	self          exec
//
// Nothing of it touches a connection: server and standby follow each other as at any restart, and
// manager and cop hold no connection.

// upStep is how far an upgrade has come.
type upStep uint8

const (
	upIdle upStep = iota
	upServer
	upManager   // the old manager leaves, the new one starts
	upProbation // the new manager is ready
	upSelf
	numUpSteps
)

func (s upStep) String() string {
	return name(s, "idle", "server", "manager", "probation", "self")
}

// upEvent is what happens in an upgrade.
type upEvent uint8

const (
	upGood upEvent = iota // what was asked for has happened
	upBad                 // it has not, and nothing has changed by it
	upDied                // the manager died, unasked
	upOver                // the probation is over
	numUpEvents
)

func (e upEvent) String() string { return name(e, "good", "bad", "died", "over") }

// upDeed is what cop does about it.
type upDeed uint8

const (
	upNothing  upDeed = iota
	upAskLeave        // have the manager leave
	upArm             // begin the probation
	upBack            // start managers from the old executable again
	upExec            // replace cop itself
	upEnd             // it has failed, and what has been done stays
	numUpDeeds
)

func (d upDeed) String() string {
	return name(d, "nothing", "ask leave", "arm", "back", "exec", "end")
}

type upCell struct {
	next upStep
	do   upDeed
}

// upTable is the whole of an upgrade.
var upTable = [numUpSteps][numUpEvents]upCell{
	upIdle: {
		upGood: {upIdle, upNothing}, upBad: {upIdle, upNothing},
		upDied: {upIdle, upNothing}, upOver: {upIdle, upNothing},
	},
	upServer: {
		upGood: {upManager, upAskLeave}, upBad: {upIdle, upEnd},
		upDied: {upIdle, upEnd}, upOver: {upServer, upNothing},
	},
	upManager: {
		upGood: {upProbation, upArm}, upBad: {upIdle, upEnd},
		upDied: {upIdle, upBack}, upOver: {upManager, upNothing},
	},
	upProbation: {
		upGood: {upProbation, upNothing}, upBad: {upProbation, upNothing},
		upDied: {upIdle, upBack}, upOver: {upSelf, upExec},
	},
	upSelf: {
		upGood: {upSelf, upNothing}, upBad: {upIdle, upEnd},
		upDied: {upSelf, upNothing}, upOver: {upSelf, upNothing},
	},
}

// upgrade is the one that is under way, or was last. Owned by the loop.
type upgrade struct {
	step   upStep
	old    *program.Program // what managers were started from before
	x      *program.Program
	oldPID int // of the manager that is to leave
	report program.Report
}

// beginUpgrade takes an order of the manager.
func (c *cop) beginUpgrade(o program.Order) (program.Report, error) {
	u := &c.upgrade
	switch {
	case c.phase != running:
		return u.report, errors.New("the instance is stopping")
	case u.step != upIdle:
		return u.report, fmt.Errorf("an upgrade to %s is under way", u.report.Binary)
	}
	x, err := c.env.open(o.Path, o.ID)
	if err != nil {
		return u.report, err
	}
	now := c.env.now()
	u.step, u.x = upServer, x
	u.report = program.Report{
		ID:    strconv.FormatUint(c.ownGen, 10) + "-" + strconv.FormatInt(now.UnixNano(), 36),
		State: program.Running, Binary: o.Path, Version: o.Version, Began: now, Steps: []program.Step{},
	}
	c.log.Info().Str("binary", o.Path).Str("version", o.Version).Msg("upgrade begins")
	c.env.ask(opUpgrade, o, func(err error) {
		if err != nil {
			c.stepped(program.Step{Role: "server", Text: err.Error()})
		}
	})
	return u.report, nil
}

// stepped takes in what became of the server.
func (c *cop) stepped(s program.Step) {
	if c.upgrade.step != upServer {
		return
	}
	if s.OK {
		c.advance(upGood, s)
		return
	}
	c.advance(upBad, s)
}

// advance takes the upgrade a step further. s says what became of the step that ends.
func (c *cop) advance(e upEvent, s program.Step) {
	u := &c.upgrade
	from, cell := u.step, upTable[u.step][e]
	if cell.do == upNothing {
		return
	}
	u.step = cell.next
	state := program.Running
	if cell.next == upIdle {
		state = program.Failed
	}
	if s.Text != "" {
		u.report = u.report.With(s, state)
	}
	u.report.State = state
	c.log.Info().Stringer("step", from).Stringer("event", e).Stringer("then", cell.do).Str("result", s.Text).Msg("upgrade")
	c.publishUpgrade()
	switch cell.do {
	case upAskLeave:
		c.makeWay()
	case upArm:
		c.after(c.cfg.Upgrade.Probation, func() {
			c.advance(upOver, program.Step{Role: "manager", OK: true, OldPID: u.oldPID, PID: pidOf(c.manager.p), Text: "upgraded"})
		})
	case upBack:
		c.program, u.x = u.old, nil
		c.due = c.env.now()
	case upExec:
		c.becomeNew()
	}
}

// publishUpgrade has the manager show how far it has come.
func (c *cop) publishUpgrade() {
	if c.upgrade.report.ID != "" {
		c.env.tell(opReport, c.upgrade.report)
	}
}

// makeWay has managers be started from the new executable, and the present one leave.
func (c *cop) makeWay() {
	u := &c.upgrade
	u.old, u.oldPID = c.program, pidOf(c.manager.p)
	c.program = u.x
	c.askLeave()
}

// askLeave asks the manager to make way. A link that is lost is no answer: the manager may have
// agreed and be gone already, or dead, and both make way. Is it neither, it is asked again when
// the link is up.
func (c *cop) askLeave() {
	u := &c.upgrade
	c.env.ask(opLeave, nil, func(err error) {
		refused := (*link.RemoteError)(nil)
		if !errors.As(err, &refused) && !errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if u.step == upManager && pidOf(c.manager.p) == u.oldPID {
			c.program = u.old
			c.advance(upBad, program.Step{Role: "manager", OldPID: u.oldPID, PID: u.oldPID, Text: "the old one stays: " + err.Error()})
		}
	})
}

// managerReady and managerDied tell the upgrade what it has to know of managers.
func (c *cop) managerReady(pid int) {
	if c.upgrade.step == upManager && pid != c.upgrade.oldPID {
		c.advance(upGood, program.Step{})
	}
}

func (c *cop) managerDied(pid int, why string) {
	u := &c.upgrade
	switch {
	case u.step == upManager && pid == u.oldPID:
		return // it makes way
	case u.step == upServer:
		c.advance(upDied, program.Step{Role: "server", Text: "not known: the manager died meanwhile"})
	case u.step == upManager || u.step == upProbation:
		c.advance(upDied, program.Step{
			Role: "manager", OldPID: u.oldPID,
			Text: fmt.Sprintf("rolled back: the new manager (pid %d) died within its probation: %s", pid, why),
		})
	}
}

// becomeNew replaces this program. It returns only if that fails.
func (c *cop) becomeNew() {
	u := &c.upgrade
	done := u.report.With(program.Step{Role: "cop", OK: true, OldPID: c.self.PID, PID: c.self.PID, Text: "upgraded in its place"}, program.Done)
	c.log.Info().Str("binary", u.x.Path).Msg("cop becomes the new executable")
	err := c.env.exec(u.x, c.ownGen+1, c.heritage, done)
	c.advance(upBad, program.Step{Role: "cop", OldPID: c.self.PID, PID: c.self.PID, Text: "the old one stays: " + err.Error()})
}

// after runs f on the loop in a while, if the loop lives.
func (c *cop) after(d time.Duration, f func()) {
	c.wg.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			c.post(f)
		case <-c.over:
		}
	})
}

// What a cop leaves to the program that takes its process over, beside heritage and generation.
const (
	lockEnv   = "TRAFFICD_COP_LOCK"    // number of the descriptor of cop.lock
	reportEnv = "TRAFFICD_COP_UPGRADE" // the report of the upgrade, JSON
)

// replaceSelf is env.exec of the real world. The lock is never free in it, and no child notices.
func replaceSelf(flags config.Overrides, lock *lockfile.Lock, x *program.Program, generation uint64, h *heritage.Set, r program.Report) error {
	fd, err := lock.Pass()
	if err != nil {
		return err
	}
	defer lock.Withdraw()
	passed, err := h.Stay()
	if err != nil {
		return err
	}
	defer h.Withdraw()
	report, err := r.Text()
	if err != nil {
		return err
	}
	argv0, args := supervise.Command("cop", flags)
	env := append(os.Environ(), // also what init meant for this process: it is the same one
		passed, supervise.GenerationEnv+"="+strconv.FormatUint(generation, 10),
		lockEnv+"="+strconv.Itoa(fd), reportEnv+"="+report)
	return x.Exe.Exec(append([]string{argv0}, args...), env)
}

// resumed is what this process's former program has left; zero if there was none.
type resumed struct {
	lock   int // descriptor; 0: none
	report program.Report
}

// resume reads what replaceSelf has left, and removes it. Call it before anything is opened.
func resume() (resumed, error) {
	var r resumed
	text, report := os.Getenv(lockEnv), os.Getenv(reportEnv)
	os.Unsetenv(lockEnv)
	os.Unsetenv(reportEnv)
	if text == "" {
		return r, nil
	}
	fd, err := strconv.ParseUint(text, 10, 31)
	if err != nil || fd < 3 {
		return r, fmt.Errorf("%s=%.20q is no descriptor", lockEnv, text)
	}
	unix.CloseOnExec(int(fd))
	r.lock = int(fd)
	r.report, err = program.ParseReport(report)
	return r, err
}
