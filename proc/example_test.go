package proc_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"trafficd/proc"
)

// A parent starts a child from its own executable, waits until it is ready, and ends it. The child calls
// proc.NotifyReady when it serves, or proc.NotifyError when it cannot.
func Example() {
	self, err := proc.OpenSelf()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer self.Close()

	child, err := proc.Start(proc.Spec{
		Exe:    self,
		Argv0:  "example-server",
		Env:    append(os.Environ(), "PROC_TEST_ROLE=serve"),
		Notify: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := child.WaitReady(ctx); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	if err := child.Terminate(ctx, proc.Escalation{Grace: time.Minute}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(child.Exit())
	// Output:
	// ready
	// signal: terminated
}
