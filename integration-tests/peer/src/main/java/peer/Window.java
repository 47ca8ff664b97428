package peer;

import java.nio.ByteBuffer;
import java.util.Arrays;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** The last values of a key, oldest first: eight bytes each. */
final class Window implements Serde<double[]> {
    /** The values with one more, and without the oldest if they are too many. */
    static double[] with(double[] before, double value, int window) {
        if (before == null) {
            return new double[] {value};
        }
        int dropped = before.length < window ? 0 : 1;
        double[] values = new double[before.length + 1 - dropped];
        System.arraycopy(before, dropped, values, 0, before.length - dropped);
        values[values.length - 1] = value;
        return values;
    }

    @Override
    public Serializer<double[]> serializer() {
        return (topic, values) -> {
            if (values == null) {
                return null;
            }
            ByteBuffer bytes = ByteBuffer.allocate(Double.BYTES * values.length);
            Arrays.stream(values).forEach(bytes::putDouble);
            return bytes.array();
        };
    }

    @Override
    public Deserializer<double[]> deserializer() {
        return (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            double[] values = new double[bytes.length / Double.BYTES];
            ByteBuffer.wrap(bytes).asDoubleBuffer().get(values);
            return values;
        };
    }
}
