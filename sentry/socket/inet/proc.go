package inet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"garrison/abi"
)

// ProcTCP, ProcTCP6, ProcUDP, ProcUDP6, ProcUDPLite and ProcUDPLite6 are the
// files of those names in /proc/net (proc(5)).
func (st *Stack) ProcTCP() []byte      { return st.procNet(st.tcp, false, true) }
func (st *Stack) ProcTCP6() []byte     { return st.procNet(st.tcp, true, true) }
func (st *Stack) ProcUDP() []byte      { return st.procNet(st.udp, false, false) }
func (st *Stack) ProcUDP6() []byte     { return st.procNet(st.udp, true, false) }
func (st *Stack) ProcUDPLite() []byte  { return st.procNet(st.udplite, false, false) }
func (st *Stack) ProcUDPLite6() []byte { return st.procNet(st.udplite, true, false) }

// row is what one line shows, gathered under Stack.mu.
type row struct {
	e             *endpoint
	local, remote netip.AddrPort
}

func (st *Stack) procNet(t portTable, v6, tcp bool) []byte {
	st.mu.Lock()
	var rows []row
	for _, l := range t {
		for _, e := range l {
			if e.v6() == v6 {
				rows = append(rows, row{e, e.local, e.remote})
			}
		}
	}
	st.mu.Unlock()
	sort.Slice(rows, func(i, j int) bool { return rows[i].e.Ino() < rows[j].e.Ino() })
	var b strings.Builder
	b.WriteString(header(v6, tcp))
	for i, r := range rows {
		state, tx, rx := r.e.procState()
		first, width := "%4d: %s %s %02X %08X:%08X %02X:%08X %08X %5d %8d %d %d %s", 149
		if !tcp {
			first, width = "%5d: %s %s %02X %08X:%08X %02X:%08X %08X %5d %8d %d %d %s", 127
		}
		line := fmt.Sprintf(first, i, hexAddr(r.local, v6), hexAddr(r.remote, v6), state, tx, rx, 0, 0, 0, r.e.uid, 0,
			r.e.Ino(), 2, "0000000000000000")
		if tcp {
			line += " 20 4 30 10 -1"
		} else {
			line += " 0"
		}
		if !v6 {
			line = pad(line, width)
		}
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}

func pad(s string, width int) string { return s + strings.Repeat(" ", max(width-len(s), 0)) }

func header(v6, tcp bool) string {
	const columns = "local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
	switch {
	case v6 && tcp:
		return "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	case v6:
		return "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
	case tcp:
		return pad("  sl  "+columns, 149) + "\n"
	}
	return pad("   sl  "+columns+" ref pointer drops", 127) + "\n"
}

// hexAddr prints an address as the words of its memory.
func hexAddr(a netip.AddrPort, v6 bool) string {
	if !v6 {
		var ip [4]byte
		if a.Addr().Is4() {
			ip = a.Addr().As4()
		}
		return fmt.Sprintf("%08X:%04X", binary.LittleEndian.Uint32(ip[:]), a.Port())
	}
	var ip [16]byte
	if a.Addr().IsValid() && !(a.Addr().Is4() && a.Addr().IsUnspecified()) {
		ip = a.Addr().As16()
	}
	le := binary.LittleEndian
	return fmt.Sprintf("%08X%08X%08X%08X:%04X", le.Uint32(ip[:]), le.Uint32(ip[4:]), le.Uint32(ip[8:]), le.Uint32(ip[12:]), a.Port())
}

// procState is a socket's state and its queues in bytes.
func (e *endpoint) procState() (state int32, tx, rx int) {
	switch s := e.self.(type) {
	case *TCP:
		state = s.connState()
		if r := s.rx.Load(); r != nil {
			rx, _ = r.state()
		}
		if w := s.tx.Load(); w != nil {
			tx, _ = w.state()
		}
		if state == abi.TCP_LISTEN {
			s.mu.Lock()
			rx = len(s.accepted)
			s.mu.Unlock()
		}
	case *UDP:
		s.mu.Lock()
		rx = s.bytes
		s.mu.Unlock()
		s.stack.mu.Lock()
		state = abi.TCP_CLOSE
		if s.remote.Port() != 0 {
			state = abi.TCP_ESTABLISHED
		}
		s.stack.mu.Unlock()
	}
	return state, tx, rx
}

// connState is the state as TCP would name it.
func (s *TCP) connState() int32 {
	st := s.st.Load()
	rx, tx := s.rx.Load(), s.tx.Load()
	if st != abi.TCP_ESTABLISHED || rx == nil || tx == nil {
		return st
	}
	_, in := rx.state()
	_, out := tx.state()
	switch {
	case in && out:
		return abi.TCP_CLOSING
	case in:
		return abi.TCP_CLOSE_WAIT
	case out:
		return abi.TCP_FIN_WAIT2
	}
	return st
}
