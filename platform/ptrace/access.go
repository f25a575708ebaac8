package ptrace

import "garrison/platform"

// access tells what a fault at addr by the instruction at rip tried, or 0.
// ptrace(2) does not show the page fault's error code, so the instruction is
// looked at: common stores and read-modify-writes give Write. It is but a hint:
// another thread may have changed the code meanwhile.
func (t *thread) access(addr, rip uint64) platform.Prot {
	if d := addr - rip; d == 0 || d < 15 && addr&(pageSize-1) == 0 {
		return platform.Exec
	}
	var code [16]byte
	n := 0
	for n < len(code) {
		w, e := peek(t.stub.tid, rip+uint64(n))
		if e != 0 {
			// The rest lies on a page that is not there.
			if n == 0 {
				if room := pageSize - rip&(pageSize-1); room < 8 {
					w, e = peek(t.stub.tid, rip&^7)
					if e == 0 {
						w >>= (rip & 7) * 8
						for ; room > 0; room-- {
							code[n] = byte(w)
							w >>= 8
							n++
						}
					}
				}
			}
			break
		}
		for i := range 8 {
			code[n+i] = byte(w >> (8 * i))
		}
		n += 8
	}
	return decodeAccess(code[:n])
}

// decodeAccess tells whether an instruction that faults on memory wrote: Write,
// Read, or 0 for what it does not know (Intel SDM 2, appendix A).
func decodeAccess(code []byte) platform.Prot {
	i := 0
	next := func() byte {
		if i >= len(code) {
			return 0x0f // leads nowhere
		}
		i++
		return code[i-1]
	}
	op := next()
	for op == 0x66 || op == 0xf2 || op == 0xf3 || op == 0xf0 || op == 0x2e || op == 0x36 || op == 0x3e || op == 0x26 ||
		op == 0x64 || op == 0x65 || op == 0x67 {
		op = next()
	}
	if op&0xf0 == 0x40 { // REX
		op = next()
	}
	const r, w = platform.Read, platform.Write
	if op == 0xc4 || op == 0xc5 || op == 0x62 { // VEX, EVEX
		m := byte(1)
		switch op {
		case 0xc5:
			next()
		case 0xc4:
			m = next() & 0x1f
			next()
		case 0x62:
			m = next() & 7
			next()
			next()
		}
		op = next()
		if m == 1 {
			switch op {
			case 0x11, 0x13, 0x17, 0x29, 0x2b, 0x7f, 0xd6, 0xe7:
				return w
			case 0x7e:
				return 0 // vmovq load or vmovd store
			}
			return r
		}
		return 0
	}
	reg := func() byte { return next() >> 3 & 7 }
	switch {
	case op == 0x0f:
		op = next()
		switch {
		case op == 0x11, op == 0x13, op == 0x17, op == 0x29, op == 0x2b, op == 0x7f, op == 0xd6, op == 0xe7, op == 0xc3,
			op&0xf0 == 0x90,                                // setcc
			op == 0xb0, op == 0xb1, op == 0xc0, op == 0xc1, // cmpxchg, xadd
			op == 0xab, op == 0xb3, op == 0xbb, op == 0xa4, op == 0xa5, op == 0xac, op == 0xad: // bts, btr, btc, shld, shrd
			return w
		case op == 0xba && reg() > 4: // bts, btr, btc
			return w
		case op == 0xc7 && reg() == 1: // cmpxchg8b/16b
			return w
		case op == 0x10, op == 0x12, op == 0x16, op == 0x28, op == 0x6f, op == 0xb6, op == 0xb7, op == 0xbe, op == 0xbf, op&0xf0 == 0x40:
			return r
		}
		return 0
	case op < 0x40:
		switch op & 7 {
		case 0, 1: // add, or, adc, sbb, and, sub, xor to memory; cmp
			if op>>3 == 7 {
				return r
			}
			return w
		case 2, 3:
			return r
		}
		return 0
	}
	switch op {
	case 0x88, 0x89, 0xc6, 0xc7, 0x86, 0x87, 0xa2, 0xa3, 0xaa, 0xab, // mov, xchg, stos
		0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3, // rotates and shifts
		0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x68, 0x6a, 0xe8, 0x9c, 0xc8: // push, call, pushf, enter
		return w
	case 0x8a, 0x8b, 0x63, 0xa0, 0xa1, 0xac, 0xad, 0xae, 0xaf, 0x84, 0x85, 0xc3, 0xc9, // mov, movsxd, lods, scas, test, ret, leave
		0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0xa6, 0xa7, 0x69, 0x6b: // pop, cmps, imul
		return r
	case 0x80, 0x81, 0x83:
		if reg() == 7 {
			return r // cmp
		}
		return w
	case 0xf6, 0xf7:
		if n := reg(); n == 2 || n == 3 {
			return w // not, neg
		}
		return r
	case 0xfe:
		return w // inc, dec
	case 0xff:
		if reg() < 2 {
			return w // inc, dec; a call's or push's source and stack are told apart by nothing here
		}
	}
	return 0 // movs, string and x87 instructions among them: either operand
}
