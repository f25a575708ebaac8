package kernel

import "garrison/abi"

// A PIDNamespace gives numbers to tasks, process groups and sessions
// (pid_namespaces(7)). Its maps are guarded by Kernel.tasks.
type PIDNamespace struct {
	parent   *PIDNamespace
	last     int32
	tasks    map[int32]*Task
	leaders  map[int32]*ThreadGroup // by pid, zombies included
	groups   map[int32]*ProcessGroup
	sessions map[int32]*Session
}

func newPIDNamespace(parent *PIDNamespace) *PIDNamespace {
	return &PIDNamespace{parent: parent, tasks: map[int32]*Task{}, leaders: map[int32]*ThreadGroup{},
		groups: map[int32]*ProcessGroup{}, sessions: map[int32]*Session{}}
}

// groupOf returns the thread group that pid leads, or nil.
func (ns *PIDNamespace) groupOf(pid int32) *ThreadGroup { return ns.leaders[pid] }

// allocate finds the next free number: a pid is free when no task, process
// group or session has it. EAGAIN when all are taken.
func (ns *PIDNamespace) allocate() (int32, error) {
	for i := 0; i < abi.PID_MAX; i++ {
		ns.last++
		if ns.last >= abi.PID_MAX {
			ns.last = 300 // RESERVED_PIDS: low numbers are given once
		}
		id := ns.last
		if ns.tasks[id] == nil && ns.groups[id] == nil && ns.sessions[id] == nil && ns.leaders[id] == nil {
			return id, nil
		}
	}
	return 0, abi.EAGAIN
}

// TaskByID finds a thread by its id; nil if there is none.
func (k *Kernel) TaskByID(tid int32) *Task {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	return k.rootPIDNS.tasks[tid]
}

// ThreadGroupByID finds a process by its id, zombies included.
func (k *Kernel) ThreadGroupByID(pid int32) *ThreadGroup {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	return k.rootPIDNS.leaders[pid]
}

// ThreadGroups lists all processes, zombies included, in no order.
func (k *Kernel) ThreadGroups() []*ThreadGroup {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	r := make([]*ThreadGroup, 0, len(k.rootPIDNS.leaders))
	for _, tg := range k.rootPIDNS.leaders {
		r = append(r, tg)
	}
	return r
}

// TaskCount is the number of threads, LastPID the number given last.
func (k *Kernel) TaskCount() int {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	return len(k.rootPIDNS.tasks)
}

// LastPID is the number given last (/proc/loadavg).
func (k *Kernel) LastPID() int32 {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	return k.rootPIDNS.last
}
