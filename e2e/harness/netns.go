package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const netnsEnv = "E2E_NETNS"

// InOwnNetwork runs the rest of the calling story in a network namespace of its own, where there is
// nothing but a loopback interface, with the MTU of an Ethernet. It returns there; in the test
// process that was started it starts another one for the story and reports what came of it, and returns
// false. Where the kernel lets nobody make a namespace, or nothing is there to drop packets with, the story is
// skipped: nothing can be shown there.
func InOwnNetwork(t *testing.T) bool {
	t.Helper()
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skipf("no packet can be lost on purpose without iptables, which .ci/run installs: %v", err)
	}
	if os.Getenv(netnsEnv) == t.Name() {
		if err := loopbackUp(1500); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), netnsEnv+"="+t.Name(), binaryEnv+"="+binary)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if errors.Is(err, unix.EPERM) {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		err = cmd.Start()
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("the kernel lets this user make no network namespace (%v), so no packet can be lost on purpose", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	t.Logf("in a network of its own:\n%s", out.String())
	if err != nil {
		t.Errorf("in a network of its own: %v", err)
	}
	return false
}

// loopbackUp sets the interface up.
func loopbackUp(mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	r.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r); err != nil {
		return fmt.Errorf("set lo's MTU: %w", err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// LoseOnTheWire has the kernel drop that part of the packets from and to the address's port, at random,
// both when they are sent and when they arrive. It is for a story in a network of its own.
func LoseOnTheWire(t testing.TB, port, probability string) {
	t.Helper()
	tool, err := exec.LookPath("iptables")
	if err != nil {
		t.Fatalf("this story drops packets, and for that iptables must be installed: %v", err)
	}
	for chain, device := range map[string]string{"INPUT": "-i", "OUTPUT": "-o"} {
		for _, end := range []string{"--sport", "--dport"} {
			out, err := exec.Command(tool, "-A", chain, device, "lo", "-p", "tcp", end, port,
				"-m", "statistic", "--mode", "random", "--probability", probability, "-j", "DROP").CombinedOutput()
			if err != nil {
				t.Skipf("this kernel drops no packets at random: %v: %s", err, out)
			}
		}
	}
}

// Dropped is how many packets that was so far.
func Dropped(t testing.TB) int {
	t.Helper()
	out, err := exec.Command("iptables", "-nvxL").Output()
	if err != nil {
		t.Fatalf("ask iptables: %v", err)
	}
	sum := 0
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "DROP" {
			n, _ := strconv.Atoi(f[0])
			sum += n
		}
	}
	return sum
}
