package kernel

import (
	"garrison/abi"
	"garrison/sentry/cred"
)

// PriorityTargets are the threads that getpriority(2) and setpriority(2) mean.
func (t *Task) PriorityTargets(which, who int32) ([]*Task, error) {
	k := t.k
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	var out []*Task
	switch which {
	case abi.PRIO_PROCESS:
		if who == 0 {
			return []*Task{t}, nil
		}
		if x := k.rootPIDNS.tasks[who]; x != nil {
			out = append(out, x)
		}
	case abi.PRIO_PGRP:
		pg := t.tg.pgrp
		if who != 0 {
			pg = k.rootPIDNS.groups[who]
		}
		if pg != nil {
			for tg := range pg.members {
				out = append(out, tg.tasks...)
			}
		}
	case abi.PRIO_USER:
		u := cred.UID(who)
		if who == 0 {
			u = t.Cred().RUID
		}
		for _, x := range k.rootPIDNS.tasks {
			if x.Cred().RUID == u {
				out = append(out, x)
			}
		}
	default:
		return nil, abi.EINVAL
	}
	if len(out) == 0 {
		return nil, abi.ESRCH
	}
	return out, nil
}

// CPU is a CPU that t may be said to run on: the first of its affinity mask,
// or else one that spreads tasks over all.
func (t *Task) CPU() int {
	for i, w := range t.Sched().Affinity {
		if w != 0 {
			return 64*i + int(lowest(abi.SigSet(w))) - 1
		}
	}
	return int(t.TID()) % t.k.cpus
}
