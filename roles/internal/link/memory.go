package link

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// bodySeals make the memory unchangeable for sender and receiver alike, so
// that what was checked is what is used.
const bodySeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL

// sealBody puts a long body into a sealed memfd, the caller's to close.
func sealBody(body []byte) (fd int, err error) {
	if len(body) > MaxBody {
		return -1, fmt.Errorf("link: body of %d bytes, at most %d", len(body), MaxBody)
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	// MFD_NOEXEC_SEAL (Linux 6.3) is required where vm.memfd_noexec is 2.
	fd, err = unix.MemfdCreate("link body", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("link body", flags)
	}
	if err != nil {
		return -1, fmt.Errorf("link: memory for body: %w", err)
	}
	for off := 0; off < len(body); {
		n, err := unix.Pwrite(fd, body[off:], int64(off))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("link: write body: %w", err)
		}
		off += max(n, 0)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, bodySeals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("link: seal body: %w", err)
	}
	return fd, nil
}

// readBody reads a body that sealBody wrote. fd stays the caller's.
func readBody(fd int, size int64) ([]byte, error) {
	const need = unix.F_SEAL_SHRINK | unix.F_SEAL_WRITE
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&need != need {
		return nil, fmt.Errorf("%w: body is not in sealed memory", ErrMalformed)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != size || size > MaxBody {
		return nil, fmt.Errorf("%w: body of %d bytes in memory of %d", ErrMalformed, size, st.Size)
	}
	body := make([]byte, size)
	for off := 0; off < len(body); {
		n, err := unix.Pread(fd, body[off:], int64(off))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("link: read body: %w", err)
		}
		off += n
	}
	return body, nil
}
