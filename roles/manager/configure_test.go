package manager

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
)

// Which configuration a manager starts with: in a living instance what was published, whatever
// has become of the file since; otherwise the file.
func TestConfigurationOfAStart(t *testing.T) {
	const (
		published = "threads: 3\n"
		edited    = "threads: 4\n"
		broken    = "thread: 5\n"
	)
	long := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name    string
		last    string // what was published; "": nothing
		file    string
		born    time.Time // zero: the instance begins
		served  bool
		threads int // 0: refused
		note    bool
	}{
		{"first start", "", edited, time.Time{}, false, 4, false},
		{"first start, broken", "", broken, time.Time{}, false, 0, true},
		{"first start, something of an earlier life", published, edited, time.Time{}, false, 4, false},
		{"first start, broken, something of an earlier life", published, broken, time.Time{}, false, 0, true},
		{"living, unchanged", published, published, long, false, 3, false},
		{"living, edited and not published", published, edited, long, false, 3, false},
		{"living, broken", published, broken, long, false, 3, true},
		{"living, published in an earlier life", published, edited, time.Now().Add(time.Hour), false, 4, false},
		{"a server lives, nothing else is known", published, broken, time.Time{}, true, 3, true},
		{"living, nothing published, broken", "", broken, long, true, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, err := runroot.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(root.Dir(), "trafficd.yaml")
			load := func(text string) (*config.Config, error) {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return config.Load(config.Sources{Flags: config.Overrides{Config: file}})
			}
			if tt.last != "" {
				c, err := load(tt.last)
				if err != nil {
					t.Fatal(err)
				}
				if err := config.SaveLastGood(root.LastGood(), c.WithGeneration(9), version()); err != nil {
					t.Fatal(err)
				}
			}
			load(tt.file)
			c, _, err := configure(config.Overrides{Config: file}, root, tt.born, tt.served)
			var ce *config.Error
			if tt.note != (err != nil) || tt.note && !errors.As(err, &ce) {
				t.Errorf("error %v", err)
			}
			switch {
			case tt.threads == 0 && (c != nil || exitcode.Of(err) != exitcode.Config):
				t.Errorf("got %v with exit code %v, want a refusal", c, exitcode.Of(err))
			case tt.threads != 0 && (c == nil || c.Threads != tt.threads):
				t.Errorf("got %+v, want %d threads", c, tt.threads)
			case tt.threads == 3 && c.Generation != 9:
				t.Errorf("generation %d, want that of the published one", c.Generation)
			}
		})
	}
}
