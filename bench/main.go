// Command bench measures the sandbox against the host in one interleaved run:
// system calls (bench/micro), start-up, and what an idle sandbox costs. It
// prints a Markdown table with medians and ratios, and writes results.json.
//
//	go run ./bench -runsc bin/runsc -rounds 5
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A result is one row: nanoseconds for each way of running, medians.
type result struct {
	Name   string             `json:"name"`
	Median map[string]float64 `json:"median_ns"`
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	runsc := flag.String("runsc", "bin/runsc", "the runsc binary to measure")
	platforms := flag.String("platforms", "ptrace", "comma-separated platforms")
	rounds := flag.Int("rounds", 5, "rounds of everything, interleaved; medians are shown")
	scale := flag.Int("scale", 100, "operations per round, in percent of the usual")
	out := flag.String("out", "", "write the results to this file as JSON")
	rows := flag.String("rows", "", "only these rows of bench/micro, comma-separated")
	flag.Parse()

	bin, err := filepath.Abs(*runsc)
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	micro := filepath.Join(dir, "micro")
	if msg, err := exec.Command("gcc", "-O2", "-static", "-pthread", "-o", micro, "bench/micro/micro.c").CombinedOutput(); err != nil {
		log.Fatalf("compile bench/micro/micro.c: %v\n%s", err, msg)
	}
	ways := []string{"native"}
	command := map[string][]string{"native": nil}
	for _, p := range strings.Split(*platforms, ",") {
		ways = append(ways, p)
		command[p] = []string{bin, "do", "--platform=" + p, "--"}
	}

	samples := map[string]map[string][]float64{}
	var order []string
	add := func(row, way string, ns float64) {
		if samples[row] == nil {
			samples[row] = map[string][]float64{}
			order = append(order, row)
		}
		samples[row][way] = append(samples[row][way], ns)
	}
	args := []string{micro, "-n", strconv.Itoa(*scale)}
	if *rows != "" {
		args = append(args, strings.Split(*rows, ",")...)
	}
	for round := range *rounds {
		for _, way := range ways {
			log.Printf("round %d of %d: %s", round+1, *rounds, way)
			cmd := append(slices.Clone(command[way]), args...)
			text, err := exec.Command(cmd[0], cmd[1:]...).Output()
			if err != nil {
				log.Fatalf("%s: %v\n%s", strings.Join(cmd, " "), err, text)
			}
			s := bufio.NewScanner(bytes.NewReader(text))
			for s.Scan() {
				name, value, _ := strings.Cut(s.Text(), " ")
				ns, err := strconv.ParseFloat(value, 64)
				if err != nil {
					log.Fatalf("%s printed %q", cmd[0], s.Text())
				}
				add(name, way, ns)
			}
			start := append(slices.Clone(command[way]), "/bin/true")
			began := time.Now()
			if err := exec.Command(start[0], start[1:]...).Run(); err != nil {
				log.Fatalf("%s: %v", strings.Join(start, " "), err)
			}
			add("do_/bin/true", way, float64(time.Since(began)))
		}
	}

	var results []result
	fmt.Printf("| row | %s |\n|---|%s\n", strings.Join(header(ways), " | "), strings.Repeat("---|", len(header(ways))))
	for _, name := range order {
		r := result{name, map[string]float64{}}
		var cells []string
		for _, way := range ways {
			r.Median[way] = median(samples[name][way])
			cells = append(cells, duration(r.Median[way]))
			if way != "native" {
				cells = append(cells, fmt.Sprintf("%.1fx", r.Median[way]/r.Median["native"]))
			}
		}
		fmt.Printf("| %s | %s |\n", name, strings.Join(cells, " | "))
		results = append(results, r)
	}
	for _, way := range ways[1:] {
		pss, ticks, err := idle(command[way])
		if err != nil {
			log.Fatalf("measure an idle sandbox: %v", err)
		}
		fmt.Printf("\n%s, a sandbox that runs `sleep`: %.1f MB PSS over all its processes, %d ms of CPU time in 10 s.\n",
			way, float64(pss)/1024, ticks*10)
	}
	if *out != "" {
		b, _ := json.MarshalIndent(results, "", "  ")
		if err := os.WriteFile(*out, append(b, '\n'), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

func header(ways []string) (h []string) {
	for _, w := range ways {
		h = append(h, w)
		if w != "native" {
			h = append(h, "ratio")
		}
	}
	return h
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func duration(ns float64) string {
	switch {
	case ns < 1e4:
		return fmt.Sprintf("%.2f us", ns/1e3)
	case ns < 1e6:
		return fmt.Sprintf("%.0f us", ns/1e3)
	}
	return fmt.Sprintf("%.1f ms", ns/1e6)
}

// idle starts a sandbox that sleeps and returns what its processes hold, in KiB
// of PSS, and the clock ticks they use in ten seconds.
func idle(command []string) (pss, ticks int, err error) {
	cmd := exec.Command(command[0], append(slices.Clone(command[1:]), "/bin/sleep", "14")...)
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer cmd.Wait()
	time.Sleep(2 * time.Second)
	pids := descendants(cmd.Process.Pid)
	for _, p := range pids {
		pss += pssOf(p)
	}
	before := cpu(pids)
	time.Sleep(10 * time.Second)
	return pss, cpu(pids) - before, nil
}

// descendants lists pid and all processes below it.
func descendants(pid int) []int {
	list := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				list = append(list, descendants(child)...)
			}
		}
	}
	return list
}

func pssOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

func cpu(pids []int) (ticks int) {
	for _, p := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 12 {
			u, _ := strconv.Atoi(f[11])
			s, _ := strconv.Atoi(f[12])
			ticks += u + s
		}
	}
	return ticks
}
