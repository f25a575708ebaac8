package systrap

import "sync/atomic"

// A spinner decides how long a hand-over is waited for by looking at a word
// before one sleeps. A look that succeeds costs a tenth of a microsecond where a
// wake-up costs tens; one that fails burns a CPU that others may need. So both
// sides look only while there are CPUs for both of them, and for as long as it
// has paid off lately.
type spinner struct {
	score int32 // how looks went lately, 0 to scoreMax
	skip  int32 // waits to go without a look
	rest  int32 // how many, when looks fail again
}

const (
	scoreMax  = 16
	looksStep = 64             // in one go
	waitLooks = 24 * looksStep // the Sentry's, at most
	stubLooks = 1000           // a stub's
	restMin   = 64
	restMax   = 8192
)

// may reports whether there are CPUs for a pair that looks at each other.
func (s *spinner) may(p *Platform) bool {
	return p.ncpu > 1 && int(p.busy.Load())*2 <= p.ncpu
}

// stubLooks is how often the stub shall look when it has trapped.
func (s *spinner) stubLooks(p *Platform) uint32 {
	if !s.may(p) || s.skip > 0 {
		return 0
	}
	return stubLooks
}

// wait looks at a state until it is trapped, and reports whether it became so.
func (s *spinner) wait(p *Platform, state *uint32) bool {
	if s.skip > 0 {
		s.skip--
		return false
	}
	if p.busy.Add(1); !s.may(p) {
		p.busy.Add(-1)
		return false
	}
	for range waitLooks / looksStep {
		if spinWhile(state, stateRuns, looksStep) {
			p.busy.Add(-1)
			if s.score = min(s.score+1, scoreMax); s.score == scoreMax {
				s.rest = restMin
			}
			return atomic.LoadUint32(state) >= stateTrapped
		}
	}
	p.busy.Add(-1)
	if s.score -= 4; s.score < 0 {
		s.score = 0
		s.rest = min(max(2*s.rest, restMin), restMax)
		s.skip = s.rest
	}
	return false
}
