package producer;

import io.nats.client.support.JsonParseException;
import io.nats.client.support.JsonParser;
import io.nats.client.support.JsonValue;
import java.util.List;
import java.util.Set;

/** One message on an event subject. */
record Batch(long attempt, int since, List<Event> events) {

  static final int VERSION = 2;

  private static final Set<String> TERMINAL =
      Set.of("run_completed", "run_failed", "run_cancelled", "run_suspended", "run_absorbed");
  private static final Set<String> DELTAS = Set.of("text_delta", "reasoning_delta");

  /** An event as it came, and what the merger and the listener need to know of it. */
  record Event(int seq, int first, String type, JsonValue json) {
    boolean isTerminal() {
      return TERMINAL.contains(type);
    }

    boolean isDelta() {
      return DELTAS.contains(type);
    }

    String path() {
      return string(json, "path");
    }
  }

  /** Null for what is no event batch at all. */
  static Batch of(byte[] data) {
    JsonValue json;
    try {
      json = JsonParser.parse(data);
    } catch (JsonParseException error) {
      return null;
    }
    return json.map == null ? null : of(json);
  }

  /** The same, of what was parsed. */
  static Batch of(JsonValue json) {
    long version = number(json, "v", VERSION);
    if (version != VERSION) {
      throw new IllegalStateException("event batch of version " + version + ": upgrade this client");
    }
    JsonValue events = json.map.get("events");
    if (events == null || events.array == null) return null;
    return new Batch(
        number(json, "attempt", 1), // larger than an int
        (int) number(json, "since", 1),
        events.array.stream().map(Batch::event).toList());
  }

  private static Event event(JsonValue json) {
    int seq = (int) number(json, "seq", 0);
    return new Event(seq, (int) number(json, "first", seq), string(json, "type"), json);
  }

  static long number(JsonValue json, String field, long otherwise) {
    JsonValue value = json.map.get(field);
    return value == null || value.number == null ? otherwise : value.number.longValue();
  }

  /** Empty if it is missing. */
  static String string(JsonValue json, String field) {
    JsonValue value = json.map.get(field);
    return value == null || value.string == null ? "" : value.string;
  }
}
