package producer;

import io.nats.client.Connection;
import io.nats.client.Message;
import io.nats.client.Subscription;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** One listener to one run: live events, and replay wherever they leave a hole. */
final class Listener {

  private static final long GAP_PATIENCE = 200; // milliseconds
  private static final long[] SILENCE_PATIENCE = {1000, 2000, 5000, 10000};
  private static final long GAP_DOUBT = 1000;
  private static final long GAP_EXPIRED = 10000;
  private static final long GAP_LIMIT = 30_000;
  private static final byte[] CATCH_UP = {};

  private final Connection connection;
  private final String stream;
  private final String subject;
  private final BlockingQueue<byte[]> live = new LinkedBlockingQueue<>();
  private final Set<Long> read = new HashSet<>(); // the attempts that were read from the stream
  private boolean isEnded; // whether a terminal event was: all that was before it is stored
  private Merger merger = new Merger();
  private Merger doubted; // the merger before it began anew, until something differs
  private Position known;
  private int last;
  private boolean behind;
  private long readUntil;

  /**
   * Listening begins here: before the turn is published. {@code behind}: read what was said before. {@code after}:
   * what a listener that came this far knows is left out.
   */
  Listener(Connection connection, String namespace, String subject, boolean behind, Position after) {
    this.connection = connection;
    this.stream = namespace + "-EVENTS";
    this.subject = subject;
    this.behind = behind;
    this.known = after;
    connection.createDispatcher(message -> live.add(message.getData())).subscribe(subject);
    connection.addConnectionListener(
        (changed, event) -> {
          if (event == io.nats.client.ConnectionListener.Events.RECONNECTED) live.add(CATCH_UP);
        });
  }

  /** Where the last event that was handed out is. */
  Position position() {
    return last == 0 ? known : new Position(merger.attemptOf(last), last);
  }

  /** Tells {@code hear} the run's events in order, up to the terminal one, which it returns. */
  Batch.Event events(Consumer<Batch.Event> hear) throws InterruptedException {
    long gapSince = 0;
    boolean isDoubtful = false;
    int silences = 0;
    while (true) {
      if (merger.takeMustReread()) readAll();
      if (behind) {
        behind = false;
        for (Batch batch : replay()) {
          Batch.Event terminal = handOut(merger.add(batch), hear);
          if (terminal != null) return terminal;
        }
        if (isEnded || (gapSince != 0 && System.currentTimeMillis() - gapSince > GAP_EXPIRED)) {
          Batch.Event terminal = handOut(merger.skip(), hear);
          if (terminal != null) return terminal;
        }
        if (silences > 0 && !read.containsAll(merger.attempts())) beginAnew();
        if (behind || merger.mustReread()) continue;
      }
      long now = System.currentTimeMillis();
      gapSince = !merger.hasGap() ? 0 : gapSince == 0 ? now : gapSince;
      isDoubtful &= gapSince != 0;
      if (gapSince != 0 && now - gapSince > GAP_LIMIT) {
        throw new IllegalStateException("events are missing from the stream: they have expired");
      }
      if (gapSince != 0 && now - gapSince > GAP_DOUBT && !isDoubtful) {
        isDoubtful = true;
        beginAnew();
        continue;
      }
      long patience = gapSince != 0 ? GAP_PATIENCE : SILENCE_PATIENCE[Math.min(silences, 3)];
      byte[] data = live.poll(patience, TimeUnit.MILLISECONDS);
      if (data == null) silences++;
      if (data == null || data == CATCH_UP) {
        behind = true;
        continue;
      }
      silences = 0;
      Batch batch = Batch.of(data);
      if (batch == null) continue;
      Batch.Event terminal = handOut(merger.add(batch), hear);
      if (terminal != null) return terminal;
    }
  }

  /** The terminal event once it is due. */
  private Batch.Event handOut(List<Batch.Event> due, Consumer<Batch.Event> hear) {
    for (Batch.Event event : news(due)) {
      last = event.seq();
      hear.accept(event);
    }
    Batch.Event newest = due.isEmpty() ? null : due.get(due.size() - 1);
    return newest != null && newest.isTerminal() ? newest : null;
  }

  /** Leaves out what is known: up to a position, or from before the listener began anew. */
  private List<Batch.Event> news(List<Batch.Event> due) {
    int at = 0;
    if (doubted != null) {
      while (at < due.size() && doubted.attemptOf(due.get(at).seq()) == merger.attemptOf(due.get(at).seq())) at++;
      if (at < due.size()) doubted = null;
    }
    if (known != Position.START) {
      while (at < due.size() && isKnown(due.get(at).seq())) at++;
      if (at < due.size()) known = Position.START;
    }
    return due.subList(at, due.size());
  }

  private boolean isKnown(int seq) {
    return seq <= known.seq() && merger.attemptOf(seq) <= known.attempt();
  }

  /** By what is stored alone: what is heard and never stored may have made void what stands. */
  private void beginAnew() {
    if (doubted == null) doubted = merger;
    merger = new Merger();
    readAll();
  }

  private void readAll() {
    behind = true;
    readUntil = 0;
  }

  /** What the stream has beyond what was read of it before. A silent broker is asked again later. */
  private List<Batch> replay() throws InterruptedException {
    List<Batch> batches = new ArrayList<>();
    boolean more = true;
    while (more) {
      String request =
          "{\"seq\":%d,\"batch\":1000,\"max_bytes\":4194304,\"next_by_subj\":\"%s\"}"
              .formatted(readUntil + 1, subject);
      String inbox = connection.createInbox();
      Subscription replies = connection.subscribe(inbox);
      connection.publish("$JS.API.DIRECT.GET." + stream, inbox, request.getBytes(StandardCharsets.UTF_8));
      more = false;
      for (Message message; (message = replies.nextMessage(Duration.ofSeconds(5))) != null; ) {
        String sequence = header(message, "Nats-Sequence");
        if (sequence == null) { // a status, which ends this page
          String pending = header(message, "Nats-Num-Pending");
          boolean isEnd = message.isStatusMessage() && message.getStatus().getCode() == 204;
          more = isEnd && pending != null && Long.parseLong(pending) > 0;
          break;
        }
        readUntil = Long.parseLong(sequence);
        Batch batch = Batch.of(message.getData());
        if (batch == null || batch.events().isEmpty()) continue;
        read.add(batch.attempt());
        isEnded |= batch.events().get(batch.events().size() - 1).isTerminal();
        batches.add(batch);
      }
      replies.unsubscribe();
    }
    return batches;
  }

  private static String header(Message message, String name) {
    return message.hasHeaders() ? message.getHeaders().getFirst(name) : null;
  }
}
