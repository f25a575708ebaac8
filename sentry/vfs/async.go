package vfs

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/wait"
)

// Owner is who gets SIGIO and SIGURG for a file (fcntl(2), F_SETOWN_EX).
type Owner struct {
	Type int32 // F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP
	PID  int32 // zero: nobody
	Sig  int32 // F_SETSIG; zero is SIGIO
	Cred *cred.Cred
}

// F_OWNER_* of F_SETOWN_EX (asm-generic/fcntl.h).
const (
	OwnerTID  = 0
	OwnerPID  = 1
	OwnerPGRP = 2
)

// A SignalSender delivers SIGIO to a file's owner; package kernel implements it.
type SignalSender interface {
	SendIO(o Owner, fd int32, band wait.Events)
}

// asyncState is the signal-driven I/O part of a File (O_ASYNC).
type asyncState struct {
	mu     sync.Mutex
	owner  Owner
	sender SignalSender
	fd     int32
	waiter *wait.Waiter
}

// Owner is what F_GETOWN_EX and F_GETSIG show.
func (f *File) Owner() Owner {
	f.async.mu.Lock()
	defer f.async.mu.Unlock()
	return f.async.owner
}

// SetOwner changes the owner; its Sig stays.
func (f *File) SetOwner(o Owner) {
	f.async.mu.Lock()
	defer f.async.mu.Unlock()
	o.Sig = f.async.owner.Sig
	f.async.owner = o
}

// SetSig is F_SETSIG.
func (f *File) SetSig(sig int32) {
	f.async.mu.Lock()
	defer f.async.mu.Unlock()
	f.async.owner.Sig = sig
}

// SetAsync turns O_ASYNC on or off; fd is what si_fd shall say.
func (f *File) SetAsync(on bool, fd int32, s SignalSender) {
	a := &f.async
	a.mu.Lock()
	old := a.waiter
	a.waiter = nil
	var w *wait.Waiter
	if on && s != nil {
		w = &wait.Waiter{Data: f, Callback: ioHappened}
		a.waiter, a.sender, a.fd = w, s, fd
	}
	a.mu.Unlock()
	if old != nil {
		f.ops.EventUnregister(old)
	}
	if w != nil {
		f.ops.EventRegister(w, readEvents|writeEvents|abi.EPOLLPRI)
	}
	bit := uint32(0)
	if on {
		bit = abi.O_ASYNC
	}
	f.SetFlags(abi.O_ASYNC, bit)
}

// ioHappened runs with the queue locked, so the signal is sent from elsewhere.
func ioHappened(w *wait.Waiter, ev wait.Events) {
	f := w.Data.(*File)
	go func() {
		f.async.mu.Lock()
		o, s, fd, live := f.async.owner, f.async.sender, f.async.fd, f.async.waiter == w
		f.async.mu.Unlock()
		if live && s != nil && o.PID != 0 {
			s.SendIO(o, fd, ev)
		}
	}()
}

func (a *asyncState) stop(f *File) {
	a.mu.Lock()
	w := a.waiter
	a.waiter = nil
	a.mu.Unlock()
	if w != nil {
		f.ops.EventUnregister(w)
	}
}
