package proc

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"testing"
)

// copyLibraries puts into root what a dynamically linked test binary (-race links against the C library) needs to run. A static
// one needs nothing.
func copyLibraries(t *testing.T, root string, binary []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Progs {
		if s.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, s.Filesz)
		if _, err := s.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		copyFile(t, root, string(bytes.TrimRight(b, "\x00")))
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, lib := range libs {
		copyFile(t, root, findLibrary(t, lib))
	}
}

func findLibrary(t *testing.T, name string) string {
	t.Helper()
	for _, pattern := range []string{"/lib/*-linux-gnu*/", "/usr/lib/*-linux-gnu*/", "/lib64/", "/usr/lib64/", "/lib/", "/usr/lib/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("library %s not found", name)
	return ""
}

func copyFile(t *testing.T, root, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
