package program

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/roles/internal/link"
)

// The test binary is a trafficd whose answer the environment says.
func TestMain(m *testing.M) {
	if answer, ok := os.LookupEnv("PROGRAM_ANSWER"); ok && len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Print(answer)
		if answer == "" {
			os.Exit(70)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ answer, want string }{
		{Text("v1"), ""},
		{Text("v1") + "later 7\n", ""},
		{"", "exit status 70"},
		{"hello\n", "no trafficd"},
		{"trafficd v2\n", "does not say which protocol"},
		{"trafficd v2\nprotocol 999\n", fmt.Sprintf("and this instance %d", link.Version)},
		{"trafficd v2\nprotocol x\n", "speaks protocol"},
	} {
		t.Setenv("PROGRAM_ANSWER", tt.answer)
		p, err := Try(t.Context(), self)
		if tt.want == "" && (err != nil || p.Version != "v1" || p.ID == "") {
			t.Errorf("%q: %+v, %v", tt.answer, p, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q: %v, want %q in it", tt.answer, err, tt.want)
		}
		if err == nil {
			p.Exe.Close()
		}
	}
}

func TestTryWhatIsNone(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nonexistent", t.TempDir(), text} {
		if _, err := Try(t.Context(), path); err == nil {
			t.Errorf("%s can be used", path)
		}
	}
}

func TestOpenAnotherFile(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(self, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Exe.Close()
	if again, err := Open(self, p.ID); err != nil {
		t.Error(err)
	} else {
		again.Exe.Close()
	}
	if _, err := Open(self, "1:1"); err == nil {
		t.Error("another file is taken for it")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Text("v1"))
	f.Add("trafficd x\nprotocol 2\n")
	f.Add("trafficd \nprotocol 1")
	f.Fuzz(func(t *testing.T, answer string) {
		if v, err := Parse(answer); err == nil && (v == "" || !strings.HasPrefix(answer, "trafficd "+v)) {
			t.Errorf("%q is version %q", answer, v)
		}
	})
}
