package churnstream.peers;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;

/**
 * Does the job of the comparison with Kafka Streams: one processor, exactly_once_v2. Its settings come from the
 * environment, as every contender's do: BROKER IN_TOPIC OUT_TOPIC GROUP MODEL_DIR. It ends on SIGTERM.
 */
public final class Main {
    public static void main(String[] args) throws Exception {
        Model model = Model.read(Path.of(env("MODEL_DIR")));
        StreamsBuilder topology = new StreamsBuilder();
        topology.stream(env("IN_TOPIC"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .processValues(() -> new Processor(model))
            .to(env("OUT_TOPIC"), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(topology.build(), settings());
        CountDownLatch closed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(10));
            closed.countDown();
        }));
        streams.start();
        closed.await();
    }

    /** A thread for each of two cores; large polls, fetches and batches; the rest is what exactly_once_v2 brings. */
    private static Properties settings() throws Exception {
        Properties p = new Properties();
        p.put("application.id", env("GROUP"));
        p.put("bootstrap.servers", env("BROKER"));
        p.put("processing.guarantee", "exactly_once_v2");
        p.put("num.stream.threads", "2");
        p.put("state.dir", Files.createTempDirectory("peers-kstreams").toString());
        p.put("buffered.records.per.partition", "5000");
        p.put("main.consumer.auto.offset.reset", "earliest");
        p.put("main.consumer.max.poll.records", "5000");
        p.put("main.consumer.max.partition.fetch.bytes", "4194304");
        p.put("producer.batch.size", "262144");
        p.put("producer.compression.type", "lz4");
        p.put("producer.buffer.memory", "67108864");
        return p;
    }

    private static String env(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            throw new IllegalArgumentException("the environment variable " + name + " is not set");
        }
        return value;
    }

    private static final class Processor extends ContextualFixedKeyProcessor<byte[], byte[], byte[]> {
        private final Scorer scorer;

        Processor(Model model) {
            scorer = new Scorer(model);
        }

        @Override
        public void process(FixedKeyRecord<byte[], byte[]> event) {
            context().forward(event.withValue(scorer.score(event.value())));
        }
    }
}
