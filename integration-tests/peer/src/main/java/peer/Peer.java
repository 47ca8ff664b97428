package peer;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.StateRestoreListener;

/**
 * Kafka Streams with exactly_once_v2, doing what the processor does in `./x bench`.
 *
 * <p>It prints a line when it runs ("running", after every assigned task was restored) and one for each store that it has restored
 * ("restored RECORDS"), and ends by SIGTERM.
 */
public final class Peer {
    private static final Duration CLOSE_WAIT = Duration.ofSeconds(20);

    private Peer() {}

    public static void main(String[] arguments) throws InterruptedException {
        Map<String, String> options = options(arguments);
        Topology topology = Work.named(options.get("work")).topology(options);
        KafkaStreams streams = new KafkaStreams(topology, settings(options));
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                say("running");
            }
            if (now.hasCompletedShutdown()) {
                ended.countDown();
            }
        });
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setGlobalStateRestoreListener(new Restored());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(CLOSE_WAIT)));
        streams.start();
        ended.await();
    }

    /** What is tuned is listed in docs/benchmarks.md with its reason; everything else is as Kafka Streams has it. */
    private static Properties settings(Map<String, String> options) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("bootstrap-servers"));
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("application-id"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, options.get("state-dir"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.getOrDefault("threads", "1"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.getOrDefault("commit-interval-ms", "100"));
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, options.getOrDefault("cache-bytes", "67108864"));
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        options.forEach((name, value) -> {
            if (name.startsWith("set.")) {
                settings.put(name.substring("set.".length()), value);
            }
        });
        return settings;
    }

    /** {@code --name value}, again and again. */
    private static Map<String, String> options(String[] arguments) {
        Map<String, String> options = new HashMap<>();
        for (int at = 0; at < arguments.length; at += 2) {
            if (!arguments[at].startsWith("--") || at + 1 == arguments.length) {
                throw new IllegalArgumentException("--name value is expected, and not '" + arguments[at] + "'");
            }
            options.put(arguments[at].substring(2), arguments[at + 1]);
        }
        for (String name : new String[] {"work", "bootstrap-servers", "application-id", "state-dir", "input", "output"}) {
            if (!options.containsKey(name)) {
                throw new IllegalArgumentException("--" + name + " is missing");
            }
        }
        return options;
    }

    private static synchronized void say(String words) {
        System.out.println(words);
        System.out.flush();
    }

    private static final class Restored implements StateRestoreListener {
        @Override
        public void onRestoreStart(TopicPartition partition, String store, long start, long end) {}

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long end, long records) {}

        @Override
        public void onRestoreEnd(TopicPartition partition, String store, long records) {
            say("restored " + records);
        }
    }
}
