// Package hoststub is what the platforms share that run guest code in stub
// processes of the host: the place of the host's vDSO in them, the queue of
// mapping calls that a stub makes for the Sentry, and the layout of the
// extended state.
//
// It does not make or run stubs: packages ptrace and systrap do, each in its
// own way.
//
// Lock order: none of its own; a Queue is guarded by its owner's lock.
package hoststub

const (
	// TaskSize is the end of the host's user address space (TASK_SIZE_MAX).
	TaskSize = 1<<47 - PageSize
	PageSize = 4096
)
