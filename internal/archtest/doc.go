// Package archtest holds tests of the source tree itself: who may import whom,
// where unsafe code and init functions may stand, and that the documentation
// cites what exists.
//
// It has no code that runs anywhere else.
//
// It has no locks.
package archtest
