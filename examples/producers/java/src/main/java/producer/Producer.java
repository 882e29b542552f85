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
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A producer without a line of Python: it speaks docs/protocol.md. How it is used: ../../../../../README.md.
 */
public final class Producer {

  private static final String NAMESPACE = setting("ATTO_NAMESPACE", "atto");
  private static final Map<String, Integer> EXIT =
      Map.of("run_completed", 0, "run_failed", 1, "run_cancelled", 3, "run_suspended", 4, "run_absorbed", 5);
  private static final Map<String, Integer> WORDS = Map.of("--run", 2, "--attach", 2, "--cancel", 2, "--answer", 4);
  // A cluster that has no leader now, or is about to take the same message.
  private static final Set<Integer> NOT_NOW = Set.of(10008, 10009, 10118, 10119, 10158);
  private static final String USAGE =
      """
      usage: producer SESSION TEXT [RUN_ID]
             producer --answer SESSION ROOT WAIT ANSWER [RUN_ID]
             producer --attach SESSION RUN_ID [POSITION]
             producer --cancel SESSION RUN_ID [WHY]
             producer --merge""";
  private static final int BACKLOG_FULL = 75;
  private static final long PATIENCE = 15_000; // milliseconds for which a turn is offered
  private static final long ACK_PATIENCE = 2_000;
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
  private void publish(String subject, Map<String, JsonValue> body, String id) throws Exception {
    Map<String, JsonValue> fields = new HashMap<>(body);
    fields.put("v", new JsonValue(Batch.VERSION));
    byte[] data = new JsonValue(fields).toJson().getBytes(StandardCharsets.UTF_8);
    Headers headers = new Headers();
    if (id != null) headers.put("Nats-Msg-Id", id);
    long deadline = System.currentTimeMillis() + PATIENCE;
    while (true) {
      try {
        Message reply = connection.request(subject, headers, data).get(ACK_PATIENCE, TimeUnit.MILLISECONDS);
        JsonValue error = JsonValueUtils.readValue(JsonParser.parse(reply.getData()), "error");
        if (error == null) return;
        String description = JsonValueUtils.readString(error, "description");
        int code = JsonValueUtils.readInteger(error, "err_code", 0);
        if (code == 10077 && description.contains("per subject")) throw new BacklogFull();
        if (!NOT_NOW.contains(code) || System.currentTimeMillis() > deadline) throw new IOException(description);
      } catch (TimeoutException | ExecutionException | CancellationException | JsonParseException lost) {
        // No answer, or nobody there to give one: whether the turn was taken is unknown; it is offered again.
        if (System.currentTimeMillis() > deadline) throw lost;
      }
      Thread.sleep(100);
    }
  }

  private Listener listen(String session, String run, boolean behind, Position after) {
    String subject = NAMESPACE + ".event." + token(session) + "." + token(run);
    return new Listener(connection, NAMESPACE, subject, behind, after);
  }

  /** Publishes a turn or an answer, and prints the events of its run. */
  private int submit(String kind, String session, String field, JsonValue value, List<String> rest)
      throws Exception {
    String run = rest.isEmpty() ? newRunId() : rest.get(0);
    System.err.println("run " + run);
    // Heard from the start; only a run that may have begun before has something to replay.
    Listener listener = listen(session, run, !rest.isEmpty(), Position.START);
    // Nobody else can know the id, so nobody can take it first; it stays the same however often it is offered.
    String salt = "%016x".formatted(new SecureRandom().nextLong());
    String id = String.join(".", token(session), token(run), salt);
    Map<String, JsonValue> body = Map.of("run_id", new JsonValue(run), field, value);
    publish(NAMESPACE + "." + kind + "." + token(session), body, id);
    return print(listener);
  }

  private int print(Listener listener) throws InterruptedException {
    try {
      return EXIT.get(listener.events(event -> OUT.println(event.json().toJson())).type());
    } finally {
      System.err.println("position " + listener.position());
    }
  }

  private int produce(String flag, List<String> words) throws Exception {
    String session = words.get(0);
    List<String> rest = words.subList(WORDS.get(flag), words.size());
    switch (flag) {
      case "--run":
        return submit("turn", session, "input", new JsonValue(words.get(1)), rest);
      case "--answer":
        JsonValue answers = new JsonValue(Map.of(words.get(2), JsonParser.parse(words.get(3))));
        Map<String, JsonValue> resume = Map.of("run_id", new JsonValue(words.get(1)), "answers", answers);
        return submit("answer", session, "resume", new JsonValue(resume), rest);
      case "--attach":
        Position after = rest.isEmpty() ? Position.START : Position.of(rest.get(0));
        return print(listen(session, words.get(1), true, after));
      default:
        String subject = NAMESPACE + ".cancel." + token(session) + "." + token(words.get(1));
        publish(subject, Map.of("reason", new JsonValue(String.join(" ", rest))), null);
        return 0;
    }
  }

  /** For the tests: merges what comes on standard input, and says after each line what is due and which text stands. */
  private static void merge() throws IOException {
    Merger merger = new Merger();
    Transcript transcript = new Transcript();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = lines.readLine()) != null; ) {
      JsonValue happens = JsonParser.parse(line);
      List<Batch.Event> events = List.of();
      if (happens.map.containsKey("begin")) {
        merger = new Merger();
        transcript = new Transcript();
      } else if (happens.map.containsKey("skip")) {
        events = merger.skip();
      } else {
        events = merger.add(Batch.of(happens));
      }
      List<JsonValue> due = new ArrayList<>();
      for (Batch.Event event : events) {
        transcript.add(event);
        due.add(new JsonValue(new Position(merger.attemptOf(event.seq()), event.seq()).toString()));
      }
      Map<String, JsonValue> says =
          Map.of(
              "due", new JsonValue(due),
              "gap", new JsonValue(merger.hasGap()),
              "reread", new JsonValue(merger.takeMustReread()),
              "text", new JsonValue(transcript.text()));
      OUT.println(new JsonValue(says).toJson());
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
  public static void main(String[] arguments) throws IOException {
    List<String> words = new ArrayList<>(List.of(arguments));
    String flag = !words.isEmpty() && words.get(0).startsWith("--") ? words.remove(0) : "--run";
    if (flag.equals("--merge")) {
      merge();
      return;
    }
    if (!WORDS.containsKey(flag) || words.size() < WORDS.get(flag)) {
      System.err.println(USAGE);
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
