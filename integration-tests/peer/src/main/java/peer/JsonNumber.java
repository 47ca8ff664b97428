package peer;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** A number as JSON: {"value":21.5}. */
final class JsonNumber implements Serde<Double> {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final ObjectReader READER = MAPPER.readerFor(Reading.class);
    private static final ObjectWriter WRITER = MAPPER.writerFor(Reading.class);

    record Reading(@JsonProperty("value") double value) {}

    @Override
    public Serializer<Double> serializer() {
        return (topic, value) -> {
            try {
                return value == null ? null : WRITER.writeValueAsBytes(new Reading(value));
            } catch (JsonProcessingException error) {
                throw new UncheckedIOException(error);
            }
        };
    }

    @Override
    public Deserializer<Double> deserializer() {
        return (topic, bytes) -> {
            try {
                return bytes == null ? null : READER.<Reading>readValue(bytes).value();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
    }
}
