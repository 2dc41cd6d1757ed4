package main

import (
	"encoding/json"
	"os"
	"sync"
)

type fields map[string]any

var output sync.Mutex

// emit prints an event as a line of JSON.
func emit(event string, more fields) {
	line := fields{"event": event}

	for name, value := range more {
		line[name] = value
	}

	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}

	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

// violation tells of something that the remote does and the scheme does not allow.
func violation(what string, more fields) {
	emit("violation", merge(fields{"what": what}, more))
}

func fail(err error) {
	emit("failed", fields{"message": err.Error()})
	os.Exit(1)
}

func merge(a, b fields) fields {
	for name, value := range b {
		a[name] = value
	}

	return a
}
