package e2e

import (
	"os"
	"testing"

	"trafficd/e2e/harness"
)

func TestMain(m *testing.M) {
	switch {
	case harness.BeStranger(), harness.BeConfined(), harness.BeFenced():
		return
	case beContainer():
		return
	}
	os.Exit(harness.Main(m))
}
