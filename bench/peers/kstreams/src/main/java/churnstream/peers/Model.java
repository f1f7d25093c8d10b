package churnstream.peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.util.Utf8;

/** The logistic regression of lr.json with its standardisation folded into the weights. Immutable. */
final class Model {
    static final int NUMBERS = 16;
    private static final List<String> CATEGORIES = List.of(
        "month-to-month", "one-year", "two-year",
        "electronic-check", "mailed-check", "bank-transfer", "credit-card",
        "DSL", "FIBER_OPTIC", "NONE",
        "north", "south", "east", "west", "central");

    final double bias;
    final double[] numbers = new double[NUMBERS];
    private final Map<Utf8, Double> categories = new HashMap<>();

    private Model(JsonNode json) {
        double margin = json.get("intercept").asDouble();
        for (int i = 0; i < NUMBERS + CATEGORIES.size(); i++) {
            double weight = json.get("coef").get(i).asDouble() / json.get("std").get(i).asDouble();
            margin -= weight * json.get("mean").get(i).asDouble();
            if (i < NUMBERS) {
                numbers[i] = weight;
            } else {
                categories.put(new Utf8(CATEGORIES.get(i - NUMBERS)), weight);
            }
        }
        bias = margin;
    }

    static Model read(Path directory) throws IOException {
        return new Model(new ObjectMapper().readTree(directory.resolve("lr.json").toFile()));
    }

    /** What a category adds to the margin; 0 where it is unknown. No two fields share a value. */
    double category(CharSequence value) {
        Double weight = categories.get(value);
        return weight == null ? 0 : weight;
    }
}
