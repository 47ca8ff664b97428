package peer;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/** What is done with the records: the same as the processor's program of the same name, record for record. */
enum Work {
    /** The mean of the last values of each key: doubles in and out. */
    AVERAGE {
        @Override
        Topology topology(Map<String, String> options) {
            return averages(options, Serdes.Double());
        }
    },
    /** The same, with readings and averages as JSON. */
    JSON_AVERAGE {
        @Override
        Topology topology(Map<String, String> options) {
            return averages(options, new JsonNumber());
        }
    },
    /** Three operators in a row: scale, drop what is negative, average. */
    CHAIN {
        @Override
        Topology topology(Map<String, String> options) {
            StreamsBuilder builder = new StreamsBuilder();
            builder.stream(options.get("input"), Consumed.with(Serdes.String(), Serdes.Double()))
                    .mapValues(value -> value * 1.8 + 32.0)
                    .filter((key, value) -> value >= 0.0)
                    .process(averager(options))
                    .to(options.get("output"), Produced.with(Serdes.String(), Serdes.Double()));
            return builder.build();
        }
    },
    /** How often each word has been seen, over all partitions: by way of an internal topic. */
    COUNT {
        @Override
        Topology topology(Map<String, String> options) {
            StreamsBuilder builder = new StreamsBuilder();
            builder.stream(options.get("input"), Consumed.with(Serdes.Bytes(), Serdes.String()))
                    .flatMapValues(line -> List.of(line.split(" ")))
                    .groupBy((key, word) -> word, Grouped.with("by-word", Serdes.String(), Serdes.String()))
                    .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts").withCachingDisabled())
                    .toStream()
                    .to(options.get("output"), Produced.with(Serdes.String(), Serdes.Long()));
            return builder.build();
        }
    };

    abstract Topology topology(Map<String, String> options);

    static Work named(String name) {
        for (Work work : values()) {
            if (work.name().equalsIgnoreCase(name.replace('-', '_'))) {
                return work;
            }
        }
        throw new IllegalArgumentException("there is no work '" + name + "'");
    }

    private static Topology averages(Map<String, String> options, Serde<Double> number) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(options.get("input"), Consumed.with(Serdes.String(), number))
                .process(averager(options))
                .to(options.get("output"), Produced.with(Serdes.String(), number));
        return builder.build();
    }

    private static ProcessorSupplier<String, Double, String, Double> averager(Map<String, String> options) {
        int window = Integer.parseInt(options.getOrDefault("window", "10"));
        int stores = Integer.parseInt(options.getOrDefault("stores", "1"));
        return new ProcessorSupplier<>() {
            @Override
            public Processor<String, Double, String, Double> get() {
                return new Averager(window, stores);
            }

            @Override
            public Set<StoreBuilder<?>> stores() {
                Set<StoreBuilder<?>> builders = new HashSet<>();
                for (int number = 0; number < stores; number++) {
                    // Cached: several changes of a key within a transaction make one changelog record, as the processor does it.
                    builders.add(Stores.keyValueStoreBuilder(
                                    Stores.persistentKeyValueStore(store(number)), Serdes.String(), new Window())
                            .withCachingEnabled());
                }
                return builders;
            }
        };
    }

    private static String store(int number) {
        return "window-" + number;
    }

    /** Keeps the last values of each key, in each of its stores the same. */
    private static final class Averager implements Processor<String, Double, String, Double> {
        private final int window;
        private final int count;
        private ProcessorContext<String, Double> context;
        private final List<KeyValueStore<String, double[]>> stores = new ArrayList<>();

        Averager(int window, int count) {
            this.window = window;
            this.count = count;
        }

        @Override
        public void init(ProcessorContext<String, Double> context) {
            this.context = context;
            for (int number = 0; number < count; number++) {
                stores.add(context.getStateStore(store(number)));
            }
        }

        @Override
        public void process(Record<String, Double> record) {
            double mean = 0.0;
            for (KeyValueStore<String, double[]> store : stores) {
                double[] values = Window.with(store.get(record.key()), record.value(), window);
                store.put(record.key(), values);
                double sum = 0.0;
                for (double value : values) {
                    sum += value;
                }
                mean = sum / values.length;
            }
            context.forward(record.withValue(mean));
        }
    }
}
