package abi

import (
	"errors"
	"syscall"
)

// FromHost translates an error of the host's into ours, explicitly, where it
// crosses the boundary: nil stays nil, an Errno stays itself, a host error
// number becomes the same Errno (the host is amd64 Linux too), and anything
// else, such as a closed connection, is EIO.
func FromHost(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(Errno); ok {
		return e
	}
	var host syscall.Errno
	if errors.As(err, &host) {
		if host == 0 {
			return nil
		}
		return Errno(host)
	}
	var ours Errno
	if errors.As(err, &ours) {
		return ours
	}
	return EIO
}
