// The one static program that is inside a cluster's own image: the sandbox container of every pod, and a
// small server and client for the cluster's own tests.
//
//	pause              sleep until SIGTERM or SIGINT, and reap orphans as PID 1 of a pod sandbox
//	pause serve ADDR   answer every HTTP request with the host's name
//	pause get URL      print the body of one HTTP answer, retrying for ten seconds
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	go exitOnSignal()
	switch args := os.Args[1:]; {
	case len(args) == 0:
		reapOrphans()
	case len(args) == 2 && args[0] == "serve":
		fail(http.ListenAndServe(args[1], http.HandlerFunc(answerHostname)))
	case len(args) == 2 && args[0] == "get":
		fail(get(args[1]))
	default:
		fail(fmt.Errorf("usage: pause [serve ADDR | get URL], not %q", args))
	}
}

func exitOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	<-signals
	os.Exit(0)
}

func reapOrphans() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

func answerHostname(w http.ResponseWriter, _ *http.Request) {
	hostname, err := os.Hostname()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, hostname)
}

func get(url string) error {
	client := http.Client{Timeout: 2 * time.Second}
	deadline := time.Now().Add(10 * time.Second)
	for {
		answer, err := client.Get(url)
		if err == nil {
			defer answer.Body.Close()
			_, err = io.Copy(os.Stdout, answer.Body)
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
