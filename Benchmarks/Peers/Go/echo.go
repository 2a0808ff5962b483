// SPDX-License-Identifier: Apache-2.0

// The echo server a Go user would write: a goroutine per connection. Pinned to one CPU, the runtime takes GOMAXPROCS
// from the affinity mask and so runs one goroutine at a time. net turns TCP_NODELAY on by itself.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func echo(connection net.Conn) {
	defer connection.Close()
	bytes := make([]byte, 64*1024)
	for {
		count, err := connection.Read(bytes)
		if err != nil {
			return
		}
		if _, err := connection.Write(bytes[:count]); err != nil {
			return
		}
	}
}

func main() {
	port := flag.Int("port", 0, "TCP port, 0 for a free one")
	flag.Parse()
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-echo:", err)
		os.Exit(1)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				continue
			}
			go echo(connection)
		}
	}()
	fmt.Printf("listening on 127.0.0.1:%d\n", listener.Addr().(*net.TCPAddr).Port)
	<-signals
}
