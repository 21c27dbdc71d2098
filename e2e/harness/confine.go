package harness

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	confinedEnv = "E2E_CONFINED"
	nobody      = 65534
)

// Confined runs the instance as a container without rights does: as nobody, where the test may
// change that, without a capability, with no_new_privs, and under the system call filter that
// Docker has by default, as far as it concerns what a server might want.
func Confined() Option { return func(o *options) { o.confined = true } }

// BeConfined makes the test binary the launcher of a confined instance when that is what it was
// started for: it gives up its rights and executes its arguments. A TestMain calls it first.
func BeConfined() bool {
	if os.Getenv(confinedEnv) == "" {
		return false
	}
	fmt.Fprintln(os.Stderr, "confine an instance:", confine(os.Args[1], os.Args[1:]))
	os.Exit(1)
	return true
}

func confine(path string, argv []string) error {
	runtime.LockOSThread() // filter and bounding set are a thread's, and pass to what it executes
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// EINVAL: a kernel that has fewer; EPERM: there is nothing to give up.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	if os.Geteuid() == 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("leave groups: %w", err)
		}
		if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
			return fmt.Errorf("change group: %w", err)
		}
		if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
			return fmt.Errorf("change user: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	filter := dockerFilter()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	var env []string
	for _, kv := range os.Environ() {
		if kv != confinedEnv+"=1" {
			env = append(env, kv)
		}
	}
	return syscall.Exec(path, argv, env)
}

// CheckConfined says which right the process has left.
func CheckConfined(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	want := map[string]string{"CapEff": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}
	seen := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if w, ok := want[name]; ok && value != w {
			return fmt.Errorf("%s is %s", name, value)
		} else if ok {
			seen++
		}
		if name == "Uid" && strings.HasPrefix(value, "0\t") {
			return fmt.Errorf("it runs as root")
		}
	}
	if seen != 3 {
		return fmt.Errorf("the kernel does not say which rights it has")
	}
	return nil
}

// dockerFilter refuses what Docker's default profile does (moby, profiles/seccomp/default.json):
// io_uring, pidfd_getfd (which wants CAP_SYS_PTRACE), new namespaces and what else wants a capability fail with
// EPERM, clone3 with ENOSYS, since its flags cannot be looked at.
func dockerFilter() []unix.SockFilter {
	const (
		nr, arg0   = 0, 16 // offsets in struct seccomp_data; all machines that we run on are little-endian
		namespaces = 0x7e020000
	)
	refuse := func(errno syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	f := []unix.SockFilter{load(nr)}
	deny := func(call uintptr, errno syscall.Errno) {
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(call), Jf: 1}, ret(refuse(errno)))
	}
	deny(unix.SYS_CLONE3, syscall.ENOSYS)
	for _, call := range []uintptr{
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_PIDFD_GETFD,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
		unix.SYS_ADD_KEY, unix.SYS_KEYCTL, unix.SYS_REQUEST_KEY, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_QUOTACTL,
	} {
		deny(call, syscall.EPERM)
	}
	return append(f,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(unix.SYS_CLONE), Jf: 3},
		load(arg0),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: namespaces, Jf: 1},
		ret(refuse(syscall.EPERM)),
		ret(unix.SECCOMP_RET_ALLOW))
}
