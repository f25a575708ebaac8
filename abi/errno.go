package abi

import "strconv"

// Errno is a Linux error number. It is the only error type that system call
// handlers return to the dispatcher, which alone turns it into a negative
// number. Zero means success and is never returned as an error.
type Errno uint16

// Internal restart codes (include/linux/errno.h). They never reach a guest:
// kernel resolves them in one place when a system call returns.
const (
	ERESTARTSYS           Errno = 512 // restart if SA_RESTART, else EINTR
	ERESTARTNOINTR        Errno = 513 // always restart
	ERESTARTNOHAND        Errno = 514 // restart only if no handler ran
	ERESTART_RESTARTBLOCK Errno = 516 // restart through restart_syscall
)

// Error gives the C name and the number, as "ENOENT (2)".
func (e Errno) Error() string {
	return e.Name() + " (" + strconv.Itoa(int(e)) + ")"
}

// Name gives the C name, as "ENOENT"; unknown numbers give "E<number>".
func (e Errno) Name() string {
	switch e {
	case ERESTARTSYS:
		return "ERESTARTSYS"
	case ERESTARTNOINTR:
		return "ERESTARTNOINTR"
	case ERESTARTNOHAND:
		return "ERESTARTNOHAND"
	case ERESTART_RESTARTBLOCK:
		return "ERESTART_RESTARTBLOCK"
	}
	if int(e) < len(errnoNames) && errnoNames[e] != "" {
		return errnoNames[e]
	}
	return "E" + strconv.Itoa(int(e))
}
