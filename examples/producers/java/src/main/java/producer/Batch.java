package producer;

import io.nats.client.support.JsonParseException;
import io.nats.client.support.JsonParser;
import io.nats.client.support.JsonValue;
import java.util.List;
import java.util.Set;

/** One message on an event subject. */
record Batch(long attempt, int since, List<Event> events) {

  private static final Set<String> TERMINAL =
      Set.of("run_completed", "run_failed", "run_cancelled", "run_suspended");

  /** An event as it came, and what the merger and the listener need to know of it. */
  record Event(int seq, String type, JsonValue json) {
    boolean isTerminal() {
      return TERMINAL.contains(type);
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
    if (json.map == null) return null;
    long version = number(json, "v", 2);
    if (version != 2) {
      throw new IllegalStateException("event batch of version " + version + ": upgrade this client");
    }
    JsonValue events = json.map.get("events");
    if (events == null || events.array == null) return null;
    return new Batch(
        number(json, "attempt", 1), // larger than an int
        (int) number(json, "since", 1),
        events.array.stream()
            .map(event -> new Event((int) number(event, "seq", 0), event.map.get("type").string, event))
            .toList());
  }

  private static long number(JsonValue json, String field, long otherwise) {
    JsonValue value = json.map.get(field);
    return value == null || value.number == null ? otherwise : value.number.longValue();
  }
}
