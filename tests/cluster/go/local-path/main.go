// Command volume makes or removes the folder behind one local-path volume. The
// provisioner runs it in a helper pod on the volume's node, so that no image with a
// shell is needed. It plays the role that it is called by: volume-create or volume-delete.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(filepath.Base(os.Args[0]), os.Getenv("VOL_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, "volume:", err)
		os.Exit(1)
	}
}

func run(role, dir string) error {
	// A volume is never the root of all volumes, nor anything outside of it.
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return fmt.Errorf("VOL_DIR must be an absolute path below the root, got %q", dir)
	}
	switch role {
	case "volume-create":
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		// Pods run as any user, and MkdirAll obeys the umask.
		return os.Chmod(dir, 0o777)
	case "volume-delete":
		return os.RemoveAll(dir)
	default:
		return fmt.Errorf("no role is named %q", role)
	}
}
