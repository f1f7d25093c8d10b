package devbroker

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBrokerHasItsTopicsWhenNewReturns(t *testing.T) {
	cfg := freePort()
	cfg.Partitions = 3
	cfg.Topics = []Topic{
		{Name: "plain"},
		{Name: "wide", Partitions: 7},
		{Name: "state", Partitions: 1, Config: map[string]string{"cleanup.policy": "compact"}},
	}
	b := start(t, cfg)
	client := dial(t, b)
	for topic, want := range map[string]int{"plain": 3, "wide": 7, "state": 1} {
		if got, err := partitions(t, client, topic); err != nil || got != want {
			t.Errorf("%s: %d partitions (%v), want %d", topic, got, err, want)
		}
	}
	if got := setting(t, client, "state", "cleanup.policy"); got != "compact" {
		t.Errorf("cleanup.policy of state: %q", got)
	}
	if got := setting(t, client, "plain", "cleanup.policy"); got != "delete" {
		t.Errorf("cleanup.policy of plain: %q", got)
	}
}

func TestUnknownTopicIsAnErrorUnlessAutoCreated(t *testing.T) {
	for _, auto := range []bool{false, true} {
		cfg := freePort()
		cfg.AutoCreateTopics = auto
		b := start(t, cfg)
		transport := &kafka.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		w := &kafka.Writer{
			Addr: kafka.TCP(b.Addr()), Topic: "misspelt", Transport: transport, MaxAttempts: 1,
			BatchTimeout: time.Millisecond, RequiredAcks: kafka.RequireAll, AllowAutoTopicCreation: true,
		}
		client := dial(t, b)
		_ = w.WriteMessages(t.Context(), kafka.Message{Value: []byte("x")}) // the first may find the topic still without a leader
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := partitions(t, client, "misspelt")
		if auto && err != nil {
			t.Errorf("auto-creation on: %v", err)
		}
		if !auto && !errors.Is(err, kafka.UnknownTopicOrPartition) {
			t.Errorf("auto-creation off: error %v, want unknown topic", err)
		}
	}
}

func TestDataDirectoryKeepsRecordsAndTakesNewTopics(t *testing.T) {
	cfg := freePort()
	cfg.DataDir = t.TempDir()
	cfg.Topics = []Topic{{Name: "first", Partitions: 2}}
	b := start(t, cfg)
	write(t, b, "first", "kept")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	cfg.Topics = []Topic{{Name: "first", Partitions: 5}, {Name: "second", Partitions: 1}}
	b = start(t, cfg)
	client := dial(t, b)
	if n, err := partitions(t, client, "first"); err != nil || n != 2 {
		t.Errorf("first: %d partitions (%v), want the 2 it had", n, err)
	}
	if n, err := partitions(t, client, "second"); err != nil || n != 1 {
		t.Errorf("second: %d partitions (%v), want 1", n, err)
	}
	if got := read(t, b, "first"); got != "kept" {
		t.Errorf("record after the restart: %q", got)
	}
}

func TestDataDirectoryIsUsedByOneBrokerAtATime(t *testing.T) {
	cfg := freePort()
	cfg.DataDir = t.TempDir()
	b := start(t, cfg)
	_, err := New(cfg, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), cfg.DataDir) || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("second broker in the same directory: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, cfg)
}

func TestTakenPortIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	cfg := freePort()
	cfg.Listen = ln.Addr().String()
	_, err = New(cfg, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), cfg.Listen) || !strings.Contains(err.Error(), "choose another") {
		t.Fatalf("got %v, want the address and a remedy", err)
	}
}

func TestRefusedTopicStopsTheStart(t *testing.T) {
	cfg := freePort()
	cfg.Topics = []Topic{{Name: "good"}, {Name: "churn.scores"}, {Name: "churn_scores"}} // Kafka's metrics cannot tell the two apart
	_, err := New(cfg, zerolog.Nop())
	if !errors.Is(err, kafka.InvalidTopic) || strings.Contains(err.Error(), `"good"`) {
		t.Fatalf("got %v, want an error about the colliding topics alone", err)
	}
}

func TestSeveralBrokersHaveAnAddressEach(t *testing.T) {
	cfg := freePort()
	cfg.Brokers = 3
	b := start(t, cfg)
	response, err := dial(t, b).Metadata(t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ports := map[int]bool{}
	for _, broker := range response.Brokers {
		ports[broker.Port] = true
	}
	if len(ports) != 3 || len(b.Addrs()) != 3 {
		t.Errorf("brokers %v, addresses %v; want three of each", response.Brokers, b.Addrs())
	}
}

func TestWildcardListenerAdvertisesWhatCanBeDialled(t *testing.T) {
	for advertise, want := range map[string]string{"": "127.0.0.1", "localhost": "localhost"} {
		cfg := freePort()
		cfg.Listen = "0.0.0.0:0"
		cfg.Advertise = advertise
		b := start(t, cfg)
		response, err := dial(t, b).Metadata(t.Context(), &kafka.MetadataRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := response.Brokers[0].Host; got != want {
			t.Errorf("advertise %q: clients are told %q, want %q", advertise, got, want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	b := start(t, freePort())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", b.Addr()); err == nil {
		_ = conn.Close()
		t.Error("the port still answers after Run returned")
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	err := Config{
		Listen: "nowhere", SyncWrites: true,
		Topics: []Topic{{Name: "a b"}, {Name: "twice", Partitions: -1}, {Name: "twice"}},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"listen:", "brokers:", "partitions:", "sync_writes:", `"a b"`, "-1 partitions", "listed twice"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
}

func freePort() Config {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	return cfg
}

func start(t *testing.T, cfg Config) *Broker {
	t.Helper()
	b, err := New(cfg, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func dial(t *testing.T, b *Broker) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(b.Addr()), Transport: transport}
}

func partitions(t *testing.T, client *kafka.Client, topic string) (int, error) {
	t.Helper()
	response, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	return len(response.Topics[0].Partitions), response.Topics[0].Error
}

func setting(t *testing.T, client *kafka.Client, topic, name string) string {
	t.Helper()
	response, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range response.Resources[0].ConfigEntries {
		if entry.ConfigName == name {
			return entry.ConfigValue
		}
	}
	return ""
}

func write(t *testing.T, b *Broker, topic, value string) {
	t.Helper()
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := &kafka.Client{Addr: kafka.TCP(b.Addr()), Transport: transport}
	response, err := client.Produce(t.Context(), &kafka.ProduceRequest{
		Topic: topic, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(value))}),
	})
	if err == nil {
		err = response.Error
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, b *Broker, topic string) string {
	t.Helper()
	conn, err := kafka.DialLeader(t.Context(), "tcp", b.Addr(), topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	message, err := conn.ReadMessage(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return string(message.Value)
}
