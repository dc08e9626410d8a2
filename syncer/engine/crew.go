package engine

import "time"

// restTime is how long a goroutine of a crew waits for work before it ends.
const restTime = time.Second

// crew runs functions in goroutines that are used again: a new one would grow its stack for each function. Nobody waits for
// a goroutine, and those that have had nothing to do for a while end.
type crew struct{ idle chan func() }

func newCrew() *crew { return &crew{idle: make(chan func())} }

// run calls a function in a goroutine.
func (c *crew) run(f func()) {
	select {
	case c.idle <- f:
	default:
		go c.serve(f)
	}
}

func (c *crew) serve(f func()) {
	rest := time.NewTimer(restTime)
	defer rest.Stop()
	for {
		f()
		rest.Reset(restTime)
		select {
		case f = <-c.idle:
		case <-rest.C:
			return
		}
	}
}
