package roles

import (
	"slices"
	"testing"
)

func TestRoleComesFromArgv0OrTheFirstArgument(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"trafficd"}, nil},
		{[]string{"/usr/bin/trafficd", "cop", "--foreground"}, []string{"cop", "--foreground"}},
		{[]string{"traffic_cop", "--foreground"}, []string{"cop", "--foreground"}},
		{[]string{"/usr/sbin/traffic_manager"}, []string{"manager"}},
		{[]string{"traffic_server", "--threads", "2"}, []string{"server", "--threads", "2"}},
		{[]string{"traffic_ctl", "status"}, []string{"ctl", "status"}},
		{[]string{"trafficd-ctl", "status"}, []string{"ctl", "status"}},
		{[]string{"trafficd-manager", "manager", "--run-root=/x"}, []string{"manager", "--run-root=/x"}},
		{[]string{"cop"}, []string{"cop"}},
		{[]string{"traffic_line", "x"}, []string{"x"}},
		{nil, nil},
	} {
		if got := roleArgs(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"trafficd", "--version"}, 0},
		{[]string{"trafficd", "help", "signals"}, 0},
		{[]string{"trafficd"}, 64},
		{[]string{"trafficd", "nonsense"}, 64},
		{[]string{"trafficd", "cop", "--nonsense"}, 64},
		{[]string{"trafficd", "cop", "argument"}, 64},
	} {
		if got := Main(c.args); got != c.want {
			t.Errorf("%q: got exit code %d, want %d", c.args, got, c.want)
		}
	}
}
