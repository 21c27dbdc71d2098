package lockfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"trafficd/lockfile"
)

func Example() {
	dir, err := os.MkdirTemp("", "lockfile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "manager.lock")

	lock, err := lockfile.Acquire(path)
	if errors.Is(err, lockfile.ErrHeld) {
		fmt.Println("another one is on duty:", err)
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lock.Release()

	owner, held, err := lockfile.Holder(path)
	fmt.Println(held, owner.PID == os.Getpid(), owner.FromKernel, err)
	// Output: true true true <nil>
}
