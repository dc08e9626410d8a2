package engine

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Functions run at once, however many there are, and goroutines that have nothing to do any more end: the bubble would not
// end before them.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew()
		for range 3 {
			var running, done sync.WaitGroup
			hold := make(chan struct{})
			for range 20 {
				running.Add(1)
				done.Add(1)
				c.run(func() {
					defer done.Done()
					running.Done()
					<-hold
				})
			}
			running.Wait()
			close(hold)
			done.Wait()
			synctest.Wait()
			began := time.Now()
			<-time.After(restTime / 2)
			used := false
			c.run(func() { used = true })
			synctest.Wait()
			if !used || time.Since(began) != restTime/2 {
				t.Fatal("a goroutine that rests was not used")
			}
		}
		<-time.After(2 * restTime)
		synctest.Wait()
		select {
		case c.idle <- func() {}:
			t.Error("a goroutine still waits for work")
		default:
		}
	})
}
