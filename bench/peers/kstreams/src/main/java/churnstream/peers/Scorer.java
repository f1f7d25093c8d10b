package churnstream.peers;

import churn.v1.ChurnScore;
import churn.v1.CustomerActivity;
import churn.v1.InternetService;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.avro.util.Utf8;

/** Turns an event in the Confluent wire format into a score in the same, all memory reused. Belongs to one thread. */
final class Scorer {
    private static final int ACTIVITY_ID = 1;
    private static final int SCORE_ID = 2;
    private static final Utf8 VERSION = new Utf8("lr-1");

    private final Model model;
    private final double[] internet = new double[InternetService.values().length];
    private final SpecificDatumReader<CustomerActivity> reader = new SpecificDatumReader<>(CustomerActivity.class);
    private final SpecificDatumWriter<ChurnScore> writer = new SpecificDatumWriter<>(ChurnScore.class);
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(128);
    private final ChurnScore score = new ChurnScore();
    private CustomerActivity event;
    private BinaryDecoder decoder;
    private BinaryEncoder encoder;

    Scorer(Model model) {
        this.model = model;
        for (InternetService service : InternetService.values()) {
            internet[service.ordinal()] = model.category(new Utf8(service.name()));
        }
    }

    byte[] score(byte[] value) {
        if (value.length < 5 || value[0] != 0 || value[4] != ACTIVITY_ID) {
            throw new IllegalArgumentException("the event is not in the expected wire format");
        }
        try {
            decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
            event = reader.read(event, decoder);
            score.setCustomerId(event.getCustomerId());
            score.setEventId(event.getEventId());
            score.setEventTs(event.getEventTs());
            score.setProbability(1 / (1 + Math.exp(-margin(event))));
            score.setModelVersion(VERSION);
            bytes.reset();
            bytes.write(new byte[] {0, 0, 0, 0, SCORE_ID});
            encoder = EncoderFactory.get().directBinaryEncoder(bytes, encoder);
            writer.write(score, encoder);
            return bytes.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private double margin(CustomerActivity a) {
        double[] w = model.numbers;
        Long days = a.getDaysSinceLastLogin();
        Double nps = a.getNpsScore();
        return model.bias
            + w[0] * a.getTenureMonths() + w[1] * a.getMonthlyCharges() + w[2] * a.getTotalCharges()
            + w[3] * a.getDataUsedGb() + w[4] * a.getMinutesUsed() + w[5] * a.getSupportCalls90d()
            + w[6] * a.getLatePayments12m() + (days == null ? 0 : w[7] * days) + (nps == null ? 0 : w[8] * nps)
            + w[9] * a.getAvgSessionSeconds() + w[10] * a.getLogins30d() + w[11] * a.getNumLines()
            + w[12] * a.getDiscountPct() + w[13] * a.getRoamingEvents30d() + w[14] * a.getDroppedCalls30d()
            + (a.getAutopay() ? w[15] : 0)
            + model.category(a.getContract()) + model.category(a.getPaymentMethod())
            + internet[a.getInternetService().ordinal()] + model.category(a.getRegion());
    }
}
