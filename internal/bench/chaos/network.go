package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// network is what lies between one worker and the brokers: a proxy a broker. The worker dials the proxy where it would
// dial the broker, so brokers advertise their own addresses and each worker's network can be torn by itself.
type network struct {
	proxies map[string]*toxiproxy.Proxy // by the broker's address
}

func newNetwork(worker string, addresses []string) (*network, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	n := &network{proxies: map[string]*toxiproxy.Proxy{}}
	for _, address := range addresses {
		p := toxiproxy.NewProxy(server, worker+" to "+address, "127.0.0.1:0", address)
		if err := p.Start(); err != nil {
			return nil, fmt.Errorf("proxy of %s: %w", address, err)
		}
		n.proxies[address] = p
	}
	return n, nil
}

// detours are the arguments that make a worker dial the proxies.
func (n *network) detours() string {
	var all []string
	for broker, p := range n.proxies {
		all = append(all, broker+"="+p.Listen)
	}
	return strings.Join(all, ",")
}

// detour makes dial go through proxies: "broker=proxy,…".
func detour(dial func(context.Context, string, string) (net.Conn, error), detours string) func(context.Context, string, string) (net.Conn, error) {
	instead := map[string]string{}
	for pair := range strings.SplitSeq(detours, ",") {
		if broker, proxy, ok := strings.Cut(pair, "="); ok {
			instead[broker] = proxy
		}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if proxy, ok := instead[address]; ok {
			address = proxy
		}
		return dial(ctx, network, address)
	}
}

// each does something with the proxies to all brokers.
func (n *network) each(do func(*toxiproxy.Proxy) error) error {
	for _, p := range n.proxies {
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

// slow delays everything that the worker hears.
func (n *network) slow(milliseconds, jitter int) error {
	return n.add(fmt.Sprintf(`{"name":"slow","type":"latency","stream":"downstream","attributes":{"latency":%d,"jitter":%d}}`, milliseconds, jitter))
}

// halfOpen keeps connections open in which nothing arrives any more, at the brokers (upstream) or at the worker
// (downstream). They are closed when it ends.
func (n *network) halfOpen(stream string) error {
	return n.add(fmt.Sprintf(`{"name":"half","type":"timeout","stream":%q,"attributes":{"timeout":0}}`, stream))
}

// reset ends connections with a TCP reset as soon as something is sent.
func (n *network) reset() error {
	return n.add(`{"name":"reset","type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`)
}

func (n *network) add(toxic string) error {
	return n.each(func(p *toxiproxy.Proxy) error {
		_, err := p.Toxics.AddToxicJson(strings.NewReader(toxic))
		return err
	})
}

// cut closes all connections and refuses new ones.
func (n *network) cut() error {
	return n.each(func(p *toxiproxy.Proxy) error {
		p.Stop()
		return nil
	})
}

// mend takes everything back.
func (n *network) mend(ctx context.Context) error {
	return n.each(func(p *toxiproxy.Proxy) error {
		p.Toxics.ResetToxics(ctx)
		if p.Enabled {
			return nil
		}
		return p.Start()
	})
}

func (n *network) close() { _ = n.cut() }
