package producer;

import io.nats.client.Connection;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.impl.Headers;
import io.nats.client.support.JsonParseException;
import io.nats.client.support.JsonParser;
import io.nats.client.support.JsonValue;
import io.nats.client.support.JsonValueUtils;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A producer without a line of Python: it speaks docs/protocol.md.
 *
 * <pre>
 * producer SESSION TEXT [RUN_ID]          submits a turn and prints its events, one JSON line each
 * producer --attach SESSION RUN_ID        prints a run's events, from the first one on
 * producer --cancel SESSION RUN_ID [WHY]  ends a run
 * </pre>
 *
 * The environment: NATS_URL, NATS_USER, NATS_PASSWORD, ATTO_NAMESPACE, ATTO_INBOX_PREFIX. Exit codes: 0
 * completed, 1 failed, 2 wrong use or no broker, 3 cancelled, 75 the session's backlog is full.
 */
public final class Producer {

  private static final String NAMESPACE = setting("ATTO_NAMESPACE", "atto");
  private static final Map<String, Integer> EXIT =
      Map.of("run_completed", 0, "run_failed", 1, "run_suspended", 1, "run_cancelled", 3);
  private static final int BACKLOG_FULL = 75;
  private static final long PATIENCE = 15_000; // milliseconds for which a turn is offered
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  private static final class BacklogFull extends Exception {
    BacklogFull() {
      super("backlog full: the session has as many unfinished turns as it may: wait until one has ended");
    }
  }

  private final Connection connection;

  private Producer(Connection connection) {
    this.connection = connection;
  }

  /** An id as one token of a subject: each byte outside [A-Za-z0-9_-] becomes =XX. */
  private static String token(String id) {
    StringBuilder encoded = new StringBuilder();
    for (byte octet : id.getBytes(StandardCharsets.UTF_8)) {
      String character = String.valueOf((char) (octet & 0xff));
      encoded.append(
          character.matches("[A-Za-z0-9_-]") ? character : "=%02X".formatted(octet & 0xff));
    }
    return encoded.toString();
  }

  /** A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits. */
  private static String newRunId() {
    SecureRandom random = new SecureRandom();
    long high = System.currentTimeMillis() << 16 | 0x7000L | random.nextInt(1 << 12);
    long low = random.nextLong() & 0x3fffffffffffffffL | 0x8000000000000000L;
    return new UUID(high, low).toString();
  }

  /** Returns once the broker has stored the message. The same id may be published again: it is stored once. */
  private void publish(String subject, Map<String, String> body, String id) throws Exception {
    Map<String, JsonValue> fields = new java.util.HashMap<>();
    body.forEach((key, value) -> fields.put(key, new JsonValue(value)));
    byte[] data = new JsonValue(fields).toJson().getBytes(StandardCharsets.UTF_8);
    Headers headers = new Headers();
    if (id != null) headers.put("Nats-Msg-Id", id);
    long deadline = System.currentTimeMillis() + PATIENCE;
    while (true) {
      try {
        Message reply = connection.request(subject, headers, data).get(5, TimeUnit.SECONDS);
        JsonValue error = JsonValueUtils.readValue(JsonParser.parse(reply.getData()), "error");
        if (error == null) return;
        String description = JsonValueUtils.readString(error, "description");
        int code = JsonValueUtils.readInteger(error, "err_code", 0);
        if (code == 10077 && description.contains("per subject")) throw new BacklogFull();
        throw new IOException(description);
      } catch (TimeoutException | ExecutionException | CancellationException | JsonParseException lost) {
        // No answer, or nobody there to give one: whether the turn was taken is unknown; it is offered again.
        if (System.currentTimeMillis() > deadline) throw lost;
        Thread.sleep(100);
      }
    }
  }

  private Listener listen(String session, String run, boolean behind) {
    String subject = NAMESPACE + ".event." + token(session) + "." + token(run);
    return new Listener(connection, NAMESPACE, subject, behind);
  }

  private int run(String session, String text, List<String> rest) throws Exception {
    String run = rest.isEmpty() ? newRunId() : rest.get(0);
    System.err.println("run " + run);
    // Heard from the start; only a run that may have begun before has something to replay.
    Listener listener = listen(session, run, !rest.isEmpty());
    Map<String, String> turn = Map.of("input", text, "run_id", run);
    publish(NAMESPACE + ".turn." + token(session), turn, token(session) + "." + token(run));
    return print(listener);
  }

  private int print(Listener listener) throws InterruptedException {
    return EXIT.get(listener.events(event -> OUT.println(event.json().toJson())).type());
  }

  private int produce(String flag, List<String> words) throws Exception {
    String session = words.get(0);
    List<String> rest = words.subList(2, words.size());
    switch (flag) {
      case "--run":
        return run(session, words.get(1), rest);
      case "--attach":
        return print(listen(session, words.get(1), true));
      default:
        String subject = NAMESPACE + ".cancel." + token(session) + "." + token(words.get(1));
        publish(subject, Map.of("reason", String.join(" ", rest)), null);
        return 0;
    }
  }

  private static Connection connect() throws IOException, InterruptedException {
    Options.Builder options =
        new Options.Builder()
            .server(setting("NATS_URL", Options.DEFAULT_URL))
            .connectionName("atto-producer-java")
            .inboxPrefix(setting("ATTO_INBOX_PREFIX", "_INBOX"))
            .maxReconnects(-1)
            .reconnectWait(Duration.ofMillis(250));
    if (System.getenv("NATS_USER") != null) {
      options.userInfo(System.getenv("NATS_USER"), setting("NATS_PASSWORD", ""));
    }
    return Nats.connect(options.build());
  }

  private static String setting(String name, String otherwise) {
    return System.getenv().getOrDefault(name, otherwise);
  }

  /** See the class. */
  public static void main(String[] arguments) {
    List<String> words = new ArrayList<>(List.of(arguments));
    String flag = !words.isEmpty() && words.get(0).startsWith("--") ? words.remove(0) : "--run";
    if (words.size() < 2 || !List.of("--run", "--attach", "--cancel").contains(flag)) {
      System.err.println("usage: producer [--attach | --cancel] SESSION TEXT | RUN_ID");
      System.exit(2);
    }
    int code = 2;
    try (Connection connection = connect()) {
      code = new Producer(connection).produce(flag, words);
    } catch (BacklogFull full) {
      System.err.println(full.getMessage());
      code = BACKLOG_FULL;
    } catch (Exception error) {
      System.err.println("error: " + error.getMessage());
    }
    System.exit(code);
  }
}
