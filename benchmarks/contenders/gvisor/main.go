// The loads of benchmarks/ends.py on wireguard-go's own userspace stack (tun/netstack, which is gVisor's).
//
//	gvisor UAPI ADDRESS serve
//	gvisor UAPI ADDRESS VERB HOST NUMBER
//
// UAPI is a file with the configuration in the words of the control protocol. What is said on the wire, and what is
// printed, is described in benchmarks/ends.py; both programs do the same in the same order.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

const (
	port         = 5001
	mtu          = 1420
	blockSize    = 1 << 20
	messageSize  = 1024
	datagramSize = 1372
	dialers      = 32
)

var stack *netstack.Net

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func block() []byte {
	made := make([]byte, blockSize)
	rand.New(rand.NewSource(1)).Read(made)
	return made
}

func digestOf(pattern []byte, octets int) []byte {
	hash := sha256.New()
	for left := octets; left > 0; left -= len(pattern) {
		hash.Write(pattern[:min(left, len(pattern))])
	}
	return hash.Sum(nil)
}

func send(stream net.Conn, pattern []byte, octets int) error {
	for left := octets; left > 0; left -= len(pattern) {
		if _, err := stream.Write(pattern[:min(left, len(pattern))]); err != nil {
			return err
		}
	}
	return nil
}

func dial(host string) net.Conn {
	stream, err := stack.DialTCPAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), port))
	check(err)
	return stream
}

func request(kind byte, number int) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, uint64(number))
}

func resident() int {
	text, err := os.ReadFile("/proc/self/statm")
	check(err)
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	check(err)
	return pages * os.Getpagesize()
}

// --- serving ---------------------------------------------------------------------------------------------------------

func serve() {
	listener, err := stack.ListenTCP(&net.TCPAddr{Port: port})
	check(err)
	fmt.Println("serving")
	for {
		stream, err := listener.Accept()
		check(err)
		go func() {
			defer stream.Close()
			answer(stream)
		}()
	}
}

func answer(stream net.Conn) error {
	head := make([]byte, 9)
	if _, err := io.ReadFull(stream, head[:1]); err != nil {
		return err
	}
	if head[0] == 'E' {
		_, err := io.Copy(stream, stream)
		return err
	}
	if _, err := io.ReadFull(stream, head[1:]); err != nil {
		return err
	}
	octets := int(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case 'D':
		pattern := block()
		digest := digestOf(pattern, octets)
		if err := send(stream, pattern, octets); err != nil {
			return err
		}
		_, err := stream.Write(digest)
		return err
	case 'U':
		received := make([]byte, octets)
		if _, err := io.ReadFull(stream, received); err != nil {
			return err
		}
		if _, err := stream.Write([]byte("!")); err != nil {
			return err
		}
		digest := sha256.Sum256(received)
		_, err := stream.Write(digest[:])
		return err
	case 'M':
		_, err := stream.Write(binary.BigEndian.AppendUint64(nil, uint64(resident())))
		return err
	case 'R':
		return collect(stream)
	}
	return errors.New("an unknown request")
}

func collect(stream net.Conn) error {
	socket, err := stack.ListenUDP(&net.UDPAddr{})
	check(err)
	defer socket.Close()
	local := socket.LocalAddr().(*net.UDPAddr)
	if _, err := stream.Write(binary.BigEndian.AppendUint64(nil, uint64(local.Port))); err != nil {
		return err
	}
	var datagrams [][]byte
	var first, last time.Time
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 65535)
		for {
			count, _, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			last = time.Now()
			if len(datagrams) == 0 {
				first = last
			}
			datagrams = append(datagrams, bytes.Clone(buffer[:count]))
		}
	}()
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		return err
	}
	socket.Close()
	<-ended
	bad := 0
	for _, datagram := range datagrams {
		if digest := sha256.Sum256(datagram[32:]); !bytes.Equal(digest[:], datagram[:32]) {
			bad++
		}
	}
	report := binary.BigEndian.AppendUint64(nil, uint64(len(datagrams)))
	report = binary.BigEndian.AppendUint64(report, uint64(bad))
	report = binary.BigEndian.AppendUint64(report, math.Float64bits(last.Sub(first).Seconds()))
	_, err = stream.Write(report)
	return err
}

// --- asking ----------------------------------------------------------------------------------------------------------

func download(host string, octets int) map[string]any {
	stream := dial(host)
	received := make([]byte, octets+sha256.Size)
	begin := time.Now()
	_, err := stream.Write(request('D', octets))
	check(err)
	_, err = io.ReadFull(stream, received[:octets])
	check(err)
	seconds := time.Since(begin).Seconds()
	_, err = io.ReadFull(stream, received[octets:])
	check(err)
	digest := sha256.Sum256(received[:octets])
	return map[string]any{"seconds": seconds, "is_whole": bytes.Equal(digest[:], received[octets:])}
}

func upload(host string, octets int) map[string]any {
	stream := dial(host)
	pattern := block()
	digest := digestOf(pattern, octets)
	answer := make([]byte, 1+sha256.Size)
	begin := time.Now()
	_, err := stream.Write(request('U', octets))
	check(err)
	check(send(stream, pattern, octets))
	_, err = io.ReadFull(stream, answer[:1])
	check(err)
	seconds := time.Since(begin).Seconds()
	_, err = io.ReadFull(stream, answer[1:])
	check(err)
	return map[string]any{"seconds": seconds, "is_whole": bytes.Equal(digest, answer[1:])}
}

func trips(host string, count int) map[string]any {
	stream := dial(host)
	message, answer := block()[:messageSize], make([]byte, messageSize)
	_, err := stream.Write([]byte("E"))
	check(err)
	taken := make([]float64, count)
	isWhole := true
	for at := range taken {
		begin := time.Now()
		_, err := stream.Write(message)
		check(err)
		_, err = io.ReadFull(stream, answer)
		check(err)
		taken[at] = time.Since(begin).Seconds()
		isWhole = isWhole && bytes.Equal(message, answer)
	}
	sort.Float64s(taken)
	return map[string]any{"p50": taken[count/2], "p99": taken[count*99/100], "is_whole": isWhole}
}

func connects(host string, seconds int) map[string]any {
	dial(host).Close()
	var count atomic.Int64
	var tasks sync.WaitGroup
	begin := time.Now()
	for range dialers {
		tasks.Add(1)
		go func() {
			defer tasks.Done()
			for time.Since(begin) < time.Duration(seconds)*time.Second {
				dial(host).Close()
				count.Add(1)
			}
		}()
	}
	tasks.Wait()
	return map[string]any{"rate": float64(count.Load()) / time.Since(begin).Seconds(), "is_whole": true}
}

func idle(host string, count int) map[string]any {
	before := resident()
	streams := make([]net.Conn, count)
	message := block()[:messageSize]
	var isWhole atomic.Bool
	isWhole.Store(true)
	var tasks sync.WaitGroup
	for first := range dialers {
		tasks.Add(1)
		go func() {
			defer tasks.Done()
			answer := make([]byte, messageSize)
			for at := first; at < count; at += dialers {
				streams[at] = dial(host)
				_, err := streams[at].Write(append([]byte("E"), message...))
				check(err)
				_, err = io.ReadFull(streams[at], answer)
				check(err)
				if !bytes.Equal(message, answer) {
					isWhole.Store(false)
				}
			}
		}()
	}
	tasks.Wait()
	after := resident()
	asked := dial(host)
	_, err := asked.Write(request('M', 0))
	check(err)
	there := make([]byte, 8)
	_, err = io.ReadFull(asked, there)
	check(err)
	return map[string]any{
		"before": before, "here": after, "there": binary.BigEndian.Uint64(there), "is_whole": isWhole.Load(),
	}
}

func datagrams(host string, seconds int) map[string]any {
	stream := dial(host)
	_, err := stream.Write(request('R', 0))
	check(err)
	answer := make([]byte, 24)
	_, err = io.ReadFull(stream, answer[:8])
	check(err)
	target := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(binary.BigEndian.Uint64(answer)))
	socket, err := stack.DialUDPAddrPort(netip.AddrPort{}, target)
	check(err)
	pattern := block()
	var burst [][]byte
	for at := range 64 {
		body := pattern[at*datagramSize : (at+1)*datagramSize-sha256.Size]
		digest := sha256.Sum256(body)
		burst = append(burst, append(digest[:], body...))
	}
	sent := 0
	for begin := time.Now(); time.Since(begin) < time.Duration(seconds)*time.Second; {
		for _, datagram := range burst {
			if _, err := socket.Write(datagram); err == nil {
				sent++
			}
		}
	}
	time.Sleep(300 * time.Millisecond)
	_, err = stream.Write([]byte("!"))
	check(err)
	_, err = io.ReadFull(stream, answer)
	check(err)
	arrived, bad := binary.BigEndian.Uint64(answer), binary.BigEndian.Uint64(answer[8:])
	rate := float64(arrived) / math.Float64frombits(binary.BigEndian.Uint64(answer[16:]))
	return map[string]any{"rate": rate, "sent": sent, "arrived": arrived, "is_whole": bad == 0}
}

func main() {
	verbs := map[string]func(string, int) map[string]any{
		"download": download, "upload": upload, "trips": trips, "connects": connects, "idle": idle,
		"datagrams": datagrams,
	}
	configuration, err := os.ReadFile(os.Args[1])
	check(err)
	device_, net_, err := netstack.CreateNetTUN([]netip.Addr{netip.MustParseAddr(os.Args[2])}, nil, mtu)
	check(err)
	stack = net_
	tunnel := device.NewDevice(device_, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	check(tunnel.IpcSet(string(configuration)))
	check(tunnel.Up())
	if os.Args[3] == "serve" {
		serve()
	}
	number, err := strconv.Atoi(os.Args[5])
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(verbs[os.Args[3]](os.Args[4], number)))
}
