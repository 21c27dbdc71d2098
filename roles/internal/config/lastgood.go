package config

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// lastGoodFormat changes when an older trafficd could misread the file.
const lastGoodFormat = 1

// LastGood is the stored form of the configuration that was last published. It is JSON, which is also YAML.
type LastGood struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the trafficd that wrote it
	Saved   time.Time `json:"saved"`
	Config  *Config   `json:"config"`
}

// SaveLastGood writes c to path so that a reader sees the old or the new file and never a part, also after a power cut:
// a temporary file beside it, fsync, rename, fsync of the directory.
func SaveLastGood(path string, c *Config, version string) error {
	b, err := json.MarshalIndent(LastGood{Format: lastGoodFormat, Version: version, Saved: time.Now().UTC(), Config: c}, "", "  ")
	if err != nil {
		return fmt.Errorf("save last good configuration: %w", err)
	}
	if err := replaceFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("save last good configuration %s: %w", path, err)
	}
	return nil
}

// replaceFile is owned by one writer at a time: the manager, which holds its lock. So the temporary name can be a fixed
// one, and what a killed manager left is overwritten by the next.
func replaceFile(path string, b []byte) error {
	dir, tmp := filepath.Dir(path), path+".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// LoadLastGood reads what SaveLastGood wrote and checks it as if it were new. Settings that another version added or
// dropped are left out or take their defaults: after a downgrade an old configuration is better than none. If there is
// no file the error is fs.ErrNotExist.
func LoadLastGood(path string) (*LastGood, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load last good configuration: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("load last good configuration %s: %w", path, fs.ErrInvalid)
	}
	b, err := io.ReadAll(io.LimitReader(f, 64*MaxFile))
	if err != nil {
		return nil, fmt.Errorf("load last good configuration %s: %w", path, err)
	}
	g, err := decodeLastGood(b)
	if err != nil {
		return nil, fmt.Errorf("load last good configuration %s: %w", path, err)
	}
	return g, nil
}

func decodeLastGood(b []byte) (*LastGood, error) {
	g := &LastGood{Config: Default()}
	if err := json.Unmarshal(b, g); err != nil {
		return nil, err
	}
	if g.Format != lastGoodFormat {
		return nil, fmt.Errorf("has format %d, want %d", g.Format, lastGoodFormat)
	}
	if g.Config == nil {
		return nil, fmt.Errorf("has no configuration")
	}
	if err := g.Config.Check(); err != nil {
		return nil, err
	}
	return g, nil
}
