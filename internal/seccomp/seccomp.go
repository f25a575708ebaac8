// Package seccomp builds system-call filters from rules that are data: an
// allow-list of system call numbers, each with optional conditions on its
// arguments, becomes a classic BPF program (seccomp(2)) that is installed for
// all threads of the process.
//
// It does not decide what anybody may call: runsc/boot and gofer hold their
// lists. It knows amd64 only, and refuses the x32 and i386 entry points.
//
// It has no locks.
package seccomp

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// An Action is a SECCOMP_RET_* value (uapi/linux/seccomp.h).
type Action uint32

// The actions that filters here use.
const (
	KillProcess Action = 0x80000000
	KillThread  Action = 0x00000000
	Trap        Action = 0x00030000
	Log         Action = 0x7ffc0000
	Allow       Action = 0x7fff0000
)

// Errno is the action that fails a call with e instead of running it.
func Errno(e uint16) Action { return 0x00050000 | Action(e) }

// A Cond is a condition on one argument. The argument is compared as the full
// 64-bit register, so a caller of an int-typed system call that leaves rubbish
// in the upper half does not match, except where Low32 is set.
type Cond struct {
	Arg    int      // 0 to 5
	Mask   uint64   // bits that are looked at; zero means all
	OneOf  []uint64 // masked value must be one of these
	Low32  bool     // look at the lower half only: the kernel takes an int
	NotAny bool     // turn the sense round: masked value is none of OneOf
}

// Eq is the condition that argument arg, an int, is one of the values.
func Eq(arg int, values ...uint64) Cond { return Cond{Arg: arg, OneOf: values, Low32: true} }

// Eq64 is Eq for arguments of the full width: pointers, lengths, offsets.
func Eq64(arg int, values ...uint64) Cond { return Cond{Arg: arg, OneOf: values} }

// Masked is the condition that the bits of mask in argument arg, an int or
// flags word, are as in one of the values.
func Masked(arg int, mask uint64, values ...uint64) Cond {
	return Cond{Arg: arg, Mask: mask, OneOf: values, Low32: mask>>32 == 0}
}

// Clear is the condition that none of the bits is set in argument arg.
func Clear(arg int, bits uint64) Cond { return Masked(arg, bits, 0) }

// A Rule allows a system call if all conditions hold. Several rules with one
// number allow what any of them allows.
type Rule struct {
	Nr   uintptr // SYS_*
	Args []Cond
	Why  string // for the reader of the list, and for the docs
}

// offsets in struct seccomp_data
const (
	offNr   = 0
	offArch = 4
	offArgs = 16

	auditArchX8664 = 0xc000003e
	x32Bit         = 0x40000000
)

// maxInsns is the kernel's BPF_MAXINSNS.
const maxInsns = 4096

// Numbers returns the system call numbers that the rules name, sorted, each once.
func Numbers(rules []Rule) []uintptr {
	var nrs []uintptr
	for _, r := range rules {
		nrs = append(nrs, r.Nr)
	}
	slices.Sort(nrs)
	return slices.Compact(nrs)
}

// Program compiles rules to BPF. A call that no rule allows meets otherwise;
// a call through a foreign entry point always meets KillProcess.
//
// The number is found by binary search, so a filter of 64 calls costs about
// six comparisons a call.
func Program(rules []Rule, otherwise Action) ([]bpf.RawInstruction, error) {
	insns, err := compile(rules, otherwise)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(insns)
	if err != nil {
		return nil, fmt.Errorf("assemble the seccomp filter: %w", err)
	}
	return raw, nil
}

func compile(rules []Rule, otherwise Action) ([]bpf.Instruction, error) {
	byNr := map[uintptr][][]Cond{}
	for _, r := range rules {
		if r.Nr >= x32Bit {
			return nil, fmt.Errorf("seccomp rule for system call %d: no such number", r.Nr)
		}
		for _, c := range r.Args {
			if c.Arg < 0 || c.Arg > 5 || len(c.OneOf) == 0 {
				return nil, fmt.Errorf("seccomp rule for system call %d: condition on argument %d with %d values", r.Nr, c.Arg, len(c.OneOf))
			}
		}
		byNr[r.Nr] = append(byNr[r.Nr], r.Args)
	}
	nrs := Numbers(rules)

	a := &assembler{}
	a.load(offArch)
	a.jump(bpf.JumpNotEqual, auditArchX8664, "badarch", "")
	a.load(offNr)
	a.jump(bpf.JumpGreaterOrEqual, x32Bit, "badarch", "")
	a.search(nrs)
	for _, nr := range nrs {
		a.label(nrLabel(nr))
		a.checks(nr, byNr[nr])
	}
	a.label("badarch")
	a.emit(bpf.RetConstant{Val: uint32(KillProcess)})
	a.label("otherwise")
	a.emit(bpf.RetConstant{Val: uint32(otherwise)})
	a.label("allow")
	a.emit(bpf.RetConstant{Val: uint32(Allow)})
	return a.link()
}

func nrLabel(nr uintptr) string { return fmt.Sprintf("nr%d", nr) }

// An assembler collects instructions whose jumps name labels.
type assembler struct {
	insns  []bpf.Instruction
	target []string // per instruction: the label an unconditional jump goes to
	labels map[string]int
	fresh  int
}

func (a *assembler) emit(i bpf.Instruction) {
	a.insns = append(a.insns, i)
	a.target = append(a.target, "")
}

func (a *assembler) load(off uint32) { a.emit(bpf.LoadAbsolute{Off: off, Size: 4}) }

func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = map[string]int{}
	}
	a.labels[name] = len(a.insns)
}

func (a *assembler) newLabel() string {
	a.fresh++
	return fmt.Sprintf("L%d", a.fresh)
}

// jmp is an unconditional jump: conditional jumps reach 255 instructions only,
// so every long way goes through one of these.
func (a *assembler) jmp(label string) {
	a.insns = append(a.insns, bpf.Jump{})
	a.target = append(a.target, label)
}

// jump goes to yes if the test holds and otherwise to no; "" falls through.
func (a *assembler) jump(test bpf.JumpTest, val uint32, yes, no string) {
	switch {
	case yes != "" && no == "":
		a.emit(bpf.JumpIf{Cond: test, Val: val, SkipTrue: 0, SkipFalse: 1})
		a.jmp(yes)
	case yes == "" && no != "":
		a.emit(bpf.JumpIf{Cond: test, Val: val, SkipTrue: 1, SkipFalse: 0})
		a.jmp(no)
	default:
		a.emit(bpf.JumpIf{Cond: test, Val: val, SkipTrue: 0, SkipFalse: 1})
		a.jmp(yes)
		a.jmp(no)
	}
}

// search jumps to the code of the number in the accumulator.
func (a *assembler) search(nrs []uintptr) {
	if len(nrs) <= 3 {
		for _, nr := range nrs {
			a.jump(bpf.JumpEqual, uint32(nr), nrLabel(nr), "")
		}
		a.jmp("otherwise")
		return
	}
	half := len(nrs) / 2
	upper := a.newLabel()
	a.jump(bpf.JumpGreaterOrEqual, uint32(nrs[half]), upper, "")
	a.search(nrs[:half])
	a.label(upper)
	a.search(nrs[half:])
}

// checks allows the call if one of the alternatives holds.
func (a *assembler) checks(nr uintptr, alternatives [][]Cond) {
	for _, conds := range alternatives {
		next := a.newLabel()
		for _, c := range conds {
			a.cond(c, next)
		}
		a.jmp("allow")
		a.label(next)
		if len(conds) == 0 {
			return // allowed whatever the other rules say
		}
	}
	a.jmp("otherwise")
}

// cond falls through if c holds and jumps to no otherwise.
func (a *assembler) cond(c Cond, no string) {
	mask := c.Mask
	if mask == 0 {
		mask = ^uint64(0)
	}
	if c.Low32 {
		mask &= 0xffffffff
	}
	found := a.newLabel()
	lo, hi := offArgs+8*uint32(c.Arg), offArgs+8*uint32(c.Arg)+4 // little endian
	for _, v := range c.OneOf {
		miss := a.newLabel()
		a.half(hi, uint32(mask>>32), uint32(v>>32), miss)
		a.half(lo, uint32(mask), uint32(v), miss)
		a.jmp(found)
		a.label(miss)
	}
	if c.NotAny {
		past := a.newLabel()
		a.jmp(past)
		a.label(found)
		a.jmp(no)
		a.label(past)
		return
	}
	a.jmp(no)
	a.label(found)
}

// half compares one masked half of an argument and jumps to miss if it differs.
func (a *assembler) half(off, mask, val uint32, miss string) {
	if mask == 0 {
		return
	}
	a.load(off)
	if mask != 0xffffffff {
		a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	a.jump(bpf.JumpEqual, val&mask, "", miss)
}

// link resolves the labels.
func (a *assembler) link() ([]bpf.Instruction, error) {
	if len(a.insns) > maxInsns {
		return nil, fmt.Errorf("seccomp filter has %d instructions, the kernel takes %d", len(a.insns), maxInsns)
	}
	for i, t := range a.target {
		if t == "" {
			continue
		}
		to, ok := a.labels[t]
		if !ok || to <= i {
			return nil, fmt.Errorf("seccomp filter: label %s is unknown or behind", t)
		}
		a.insns[i] = bpf.Jump{Skip: uint32(to - i - 1)}
	}
	return a.insns, nil
}
