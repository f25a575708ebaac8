// A program with many goroutines, timers, files, loopback connections and child processes.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		io.Copy(os.Stdout, os.Stdin)
		os.Exit(7)
	}
	// goroutines over channels
	var sum atomic.Int64
	ch := make(chan int, 100)
	var wg sync.WaitGroup
	for range 1000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for v := range ch {
				sum.Add(int64(v))
				runtime.Gosched()
			}
		}()
	}
	for i := range 20000 {
		ch <- i
	}
	close(ch)
	wg.Wait()
	fmt.Println("sum", sum.Load())

	// garbage collection with many allocations
	var keep [][]byte
	for i := range 2000 {
		b := make([]byte, 10000)
		b[i%len(b)] = 1
		if i%10 == 0 {
			keep = append(keep, b)
		}
	}
	runtime.GC()
	fmt.Println("kept", len(keep))

	// children
	for i := range 5 {
		cmd := exec.Command(os.Args[0], "child")
		in, err := cmd.StdinPipe()
		check(err)
		out, err := cmd.StdoutPipe()
		check(err)
		check(cmd.Start())
		fmt.Fprintf(in, "line %d\n", i)
		in.Close()
		line, err := bufio.NewReader(out).ReadString('\n')
		check(err)
		var ee *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &ee) {
			check(fmt.Errorf("child: %v", err))
		}
		fmt.Print("child says ", line, "exit ", ee.ExitCode(), "\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	err := exec.CommandContext(ctx, "sleep", "100").Run()
	cancel()
	fmt.Println("killed:", err)

	// loopback
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "you asked for %s", r.URL.Path) }))
	for i := range 10 {
		resp, err := http.Get(fmt.Sprintf("http://%s/%d", l.Addr(), i))
		check(err)
		b, err := io.ReadAll(resp.Body)
		check(err)
		resp.Body.Close()
		if i == 9 {
			fmt.Println(string(b))
		}
	}

	// files
	dir, err := os.MkdirTemp("", "goprog")
	check(err)
	for i := range 100 {
		check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", i)), []byte("data"), 0o644))
	}
	n := 0
	check(filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error { n++; return err }))
	fmt.Println("walked", n)
	check(os.RemoveAll(dir))

	// signals and timers
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR1)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	fmt.Println("got", <-sig)
	start := time.Now()
	<-time.After(50 * time.Millisecond)
	fmt.Println("slept", time.Since(start) >= 50*time.Millisecond)
	defer func() { fmt.Println("recovered:", recover()); os.Exit(3) }()
	var p *int
	fmt.Println(*p)
}
