// Command rebalance takes a Kafka cluster and gives tables of how long partitions stand still when the members of a
// consumer group come, go, die and return, or when the broker dies that coordinates the group.
//
// It runs workers of its own as processes. They copy one topic to another exactly once and report every commit; they
// differ in nothing but the membership: the two of package consumer, kafka-go's ConsumerGroup, or fixed partitions
// without a group, which is what the cluster alone takes. At the end of each run the output is read back: every input
// offset has to be there once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings of a measurement.
type settings struct {
	brokers      string
	cases        string
	partitions   int
	rate         int
	replication  int
	session      time.Duration
	heartbeat    time.Duration
	maxWait      time.Duration
	transactions string
	brokerWait   time.Duration // how long the broker waits for a silent member of the consumer protocol
	cluster      string        // script that runs the brokers
	logs         string
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		err = work(ctx, os.Args[2:])
	} else {
		err = measure(ctx, os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "rebalance:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("rebalance", flag.ContinueOnError)
	flags.StringVar(&s.brokers, "brokers", "127.0.0.1:19092", "bootstrap addresses, comma-separated")
	flags.StringVar(&s.cases, "cases", "kafka-go,classic,classic-static,consumer,consumer-member", "what to measure: kafka-go, classic, classic-static, consumer, consumer-member, and with -cluster none-coordinator, classic-coordinator, consumer-coordinator, kafka-go-coordinator")
	flags.IntVar(&s.partitions, "partitions", 64, "of the input and of the output")
	flags.IntVar(&s.rate, "rate", 10_000, "events a second")
	flags.IntVar(&s.replication, "replication", 1, "replicas of both topics")
	flags.DurationVar(&s.session, "session", 6*time.Second, "session timeout of the classic protocol")
	flags.DurationVar(&s.heartbeat, "heartbeat", 250*time.Millisecond, "heartbeat interval")
	flags.DurationVar(&s.maxWait, "max-wait", 100*time.Millisecond, "how long a broker holds a fetch for which it has nothing")
	flags.StringVar(&s.transactions, "transactions", "worker", "one transactional id per worker or per partition")
	flags.DurationVar(&s.brokerWait, "broker-session", 45*time.Second, "the broker's group.consumer.session.timeout.ms")
	flags.StringVar(&s.cluster, "cluster", "", "script that runs the brokers (deploy/kafka/cluster.sh), to kill and restart one")
	flags.StringVar(&s.logs, "logs", os.TempDir(), "directory for the workers' logs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fmt.Printf("%d partitions, %d events/s, 4 workers, transactions per %s, session %s, heartbeat %s\n\n", s.partitions, s.rate, s.transactions, s.session, s.heartbeat)
	fmt.Println("| membership | event | stayed: n, median / max ms | moved: n, median / max ms |")
	fmt.Println("|---|---|---|---|")
	for name := range strings.SplitSeq(s.cases, ",") {
		if err := measureCase(ctx, s, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
