// A member of a group with CooperativeStickyAssignor of the Java client. It prints every change of its assignment as a
// word and partition numbers, and leaves when its standard input ends. Arguments: bootstrap servers, group, topic.

import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class CooperativeMember implements ConsumerRebalanceListener {
  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("group.id", args[1]);
    settings.put("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
    settings.put("session.timeout.ms", "6000");
    settings.put("heartbeat.interval.ms", "300");
    settings.put("enable.auto.commit", "false");
    settings.put("key.deserializer", ByteArrayDeserializer.class);
    settings.put("value.deserializer", ByteArrayDeserializer.class);
    AtomicBoolean leaving = new AtomicBoolean();
    Thread input = new Thread(() -> {
      try {
        while (System.in.read() >= 0) {}
      } catch (java.io.IOException ended) {
        // as good as its end
      }
      leaving.set(true);
    });
    input.setDaemon(true);
    input.start();
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
      consumer.subscribe(List.of(args[2]), new CooperativeMember());
      while (!leaving.get()) {
        consumer.poll(Duration.ofMillis(50));
      }
    }
  }

  public void onPartitionsAssigned(Collection<TopicPartition> partitions) { print("assigned", partitions); }

  public void onPartitionsRevoked(Collection<TopicPartition> partitions) { print("revoked", partitions); }

  public void onPartitionsLost(Collection<TopicPartition> partitions) { print("lost", partitions); }

  private static void print(String change, Collection<TopicPartition> partitions) {
    System.out.println(change + partitions.stream().map(p -> " " + p.partition()).collect(Collectors.joining()));
    System.out.flush();
  }
}
