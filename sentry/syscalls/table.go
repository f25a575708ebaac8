// Package syscalls is the system call table: one handler per call, grouped in
// files as section 2 of the manual groups them. A handler fetches and checks
// its arguments in Linux's order, calls one subsystem, and returns.
//
// It holds no state and makes no policy; errors become negative numbers, and
// restart codes are resolved, in package kernel.
//
// It has no locks.
package syscalls

import "garrison/sentry/kernel"

// TableSize is one more than the highest system call number we know of.
const TableSize = 451

// families lists the slices that make the table, one per file.
func families() [][]kernel.Row {
	return [][]kernel.Row{
		// kernel
		processCalls, signalCalls, futexCalls, timeCalls, credCalls, schedCalls, miscCalls, refusedCalls(),
		fdCalls, rwCalls, statCalls, dirCalls, pathCalls, xattrCalls, lockCalls, mountCalls, inotifyCalls,
		// memory
		memoryCalls,
		// pipes, polling, sockets
		pipeCalls, pollCalls, epollCalls, eventfdCalls, socketCalls, socketMsgCalls,
	}
}

// Table joins the families into an array indexed by system call number. A
// number that nobody claims has an empty Name, and gives ENOSYS.
func Table() *[TableSize]kernel.Row {
	t := new([TableSize]kernel.Row)
	for _, f := range families() {
		for _, r := range f {
			t[r.Nr] = r
		}
	}
	return t
}
