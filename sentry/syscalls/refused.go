package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
)

// refuse makes rows that always fail with one error, for one reason.
func refuse(errno abi.Errno, why string, calls map[string]uintptr) []kernel.Row {
	rows := make([]kernel.Row, 0, len(calls))
	for name, nr := range calls {
		rows = append(rows, kernel.Row{Nr: nr, Name: name, Support: kernel.Refused, Errno: errno, Note: why,
			Args: []kernel.ArgKind{kernel.Hex, kernel.Hex, kernel.Hex, kernel.Hex, kernel.Hex, kernel.Hex}})
	}
	return rows
}

// refusedCalls are the calls that do not exist here, with errors that tell
// programs to do without: ENOSYS as from a kernel built without the feature,
// EPERM as for a caller without the privilege.
func refusedCalls() []kernel.Row {
	var all []kernel.Row
	add := func(rows []kernel.Row) { all = append(all, rows...) }
	add(refuse(abi.ENOSYS, "Linux itself does not implement it on this architecture", map[string]uintptr{
		"create_module": abi.SYS_create_module, "query_module": abi.SYS_query_module, "get_kernel_syms": abi.SYS_get_kernel_syms,
		"nfsservctl": abi.SYS_nfsservctl, "getpmsg": abi.SYS_getpmsg, "putpmsg": abi.SYS_putpmsg, "afs_syscall": abi.SYS_afs_syscall,
		"tuxcall": abi.SYS_tuxcall, "security": abi.SYS_security, "epoll_ctl_old": abi.SYS_epoll_ctl_old,
		"epoll_wait_old": abi.SYS_epoll_wait_old, "vserver": abi.SYS_vserver, "set_thread_area": abi.SYS_set_thread_area,
		"get_thread_area": abi.SYS_get_thread_area, "uselib": abi.SYS_uselib, "_sysctl": abi.SYS__sysctl,
		"lookup_dcookie": abi.SYS_lookup_dcookie,
	}))
	add(refuse(abi.EPERM, "it administers the machine, which is not the sandbox's", map[string]uintptr{
		"reboot": abi.SYS_reboot, "swapon": abi.SYS_swapon, "swapoff": abi.SYS_swapoff, "kexec_load": abi.SYS_kexec_load,
		"kexec_file_load": abi.SYS_kexec_file_load, "init_module": abi.SYS_init_module, "finit_module": abi.SYS_finit_module,
		"delete_module": abi.SYS_delete_module, "acct": abi.SYS_acct, "iopl": abi.SYS_iopl, "ioperm": abi.SYS_ioperm,
		"quotactl": abi.SYS_quotactl, "quotactl_fd": abi.SYS_quotactl_fd,
	}))
	add(refuse(abi.EPERM, "it shows the machine's internals", map[string]uintptr{
		"bpf": abi.SYS_bpf, "perf_event_open": abi.SYS_perf_event_open,
	}))
	add(refuse(abi.ENOSYS, "segments of the guest's own are not supported", map[string]uintptr{"modify_ldt": abi.SYS_modify_ldt}))
	add(refuse(abi.ENOSYS, "System V IPC does not exist yet", map[string]uintptr{
		"semget": abi.SYS_semget, "semop": abi.SYS_semop, "semctl": abi.SYS_semctl, "semtimedop": abi.SYS_semtimedop,
		"msgget": abi.SYS_msgget, "msgsnd": abi.SYS_msgsnd, "msgrcv": abi.SYS_msgrcv, "msgctl": abi.SYS_msgctl,
		"shmget": abi.SYS_shmget, "shmat": abi.SYS_shmat, "shmdt": abi.SYS_shmdt, "shmctl": abi.SYS_shmctl,
	}))
	add(refuse(abi.ENOSYS, "POSIX message queues do not exist yet", map[string]uintptr{
		"mq_open": abi.SYS_mq_open, "mq_unlink": abi.SYS_mq_unlink, "mq_timedsend": abi.SYS_mq_timedsend,
		"mq_timedreceive": abi.SYS_mq_timedreceive, "mq_notify": abi.SYS_mq_notify, "mq_getsetattr": abi.SYS_mq_getsetattr,
	}))
	add(refuse(abi.ENOSYS, "asynchronous I/O does not exist yet; C libraries do it with threads", map[string]uintptr{
		"io_setup": abi.SYS_io_setup, "io_destroy": abi.SYS_io_destroy, "io_getevents": abi.SYS_io_getevents,
		"io_submit": abi.SYS_io_submit, "io_cancel": abi.SYS_io_cancel, "io_pgetevents": abi.SYS_io_pgetevents,
		"io_uring_setup": abi.SYS_io_uring_setup, "io_uring_enter": abi.SYS_io_uring_enter, "io_uring_register": abi.SYS_io_uring_register,
	}))
	add(refuse(abi.ENOSYS, "keys are not kept", map[string]uintptr{
		"add_key": abi.SYS_add_key, "request_key": abi.SYS_request_key, "keyctl": abi.SYS_keyctl,
	}))
	add(refuse(abi.ENOSYS, "no process can trace or filter another yet", map[string]uintptr{
		"ptrace": abi.SYS_ptrace, "seccomp": abi.SYS_seccomp, "kcmp": abi.SYS_kcmp,
		"landlock_create_ruleset": abi.SYS_landlock_create_ruleset, "landlock_add_rule": abi.SYS_landlock_add_rule,
		"landlock_restrict_self": abi.SYS_landlock_restrict_self,
	}))
	add(refuse(abi.ENOSYS, "C libraries do without", map[string]uintptr{
		"rseq": abi.SYS_rseq, "futex_waitv": abi.SYS_futex_waitv, "userfaultfd": abi.SYS_userfaultfd,
	}))
	add(refuse(abi.ENOSYS, "mount(2) does it", map[string]uintptr{
		"open_tree": abi.SYS_open_tree, "move_mount": abi.SYS_move_mount, "fsopen": abi.SYS_fsopen, "fsconfig": abi.SYS_fsconfig,
		"fsmount": abi.SYS_fsmount, "fspick": abi.SYS_fspick, "mount_setattr": abi.SYS_mount_setattr,
	}))
	add(refuse(abi.ENOSYS, "there is no fanotify", map[string]uintptr{
		"fanotify_init": abi.SYS_fanotify_init, "fanotify_mark": abi.SYS_fanotify_mark,
	}))
	add(refuse(abi.ENOSYS, "obsolete", map[string]uintptr{"sysfs": abi.SYS_sysfs}))
	add(refuse(abi.EINVAL, "there are no namespaces to enter, and no descriptors of them", map[string]uintptr{"setns": abi.SYS_setns}))
	return all
}
