package producer;

import io.nats.client.Connection;
import io.nats.client.Message;
import io.nats.client.Subscription;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** One listener to one run: live events, and replay wherever they leave a hole. */
final class Listener {

  private static final long GAP_PATIENCE = 200; // milliseconds
  private static final long[] SILENCE_PATIENCE = {1000, 2000, 5000, 10000};
  private static final long GAP_LIMIT = 30_000;
  private static final byte[] CATCH_UP = {};

  private final Connection connection;
  private final String stream;
  private final String subject;
  private final Merger merger = new Merger();
  private final BlockingQueue<byte[]> live = new LinkedBlockingQueue<>();
  private boolean behind;
  private long readUntil;

  /** Listening begins here: before the turn is published. {@code behind}: read what was said before. */
  Listener(Connection connection, String namespace, String subject, boolean behind) {
    this.connection = connection;
    this.stream = namespace + "-EVENTS";
    this.subject = subject;
    this.behind = behind;
    connection.createDispatcher(message -> live.add(message.getData())).subscribe(subject);
    connection.addConnectionListener(
        (changed, event) -> {
          if (event == io.nats.client.ConnectionListener.Events.RECONNECTED) live.add(CATCH_UP);
        });
  }

  /** Tells {@code hear} the run's events in order, up to the terminal one, which it returns. */
  Batch.Event events(Consumer<Batch.Event> hear) throws InterruptedException {
    long gapSince = 0;
    int silences = 0;
    while (true) {
      if (merger.takeMustReread()) {
        behind = true;
        readUntil = 0;
      }
      if (behind) {
        behind = false;
        for (byte[] data : replay()) {
          Batch.Event last = add(data, hear);
          if (last != null) return last;
        }
        if (merger.mustReread()) continue;
      }
      long now = System.currentTimeMillis();
      gapSince = !merger.hasGap() ? 0 : gapSince == 0 ? now : gapSince;
      if (gapSince != 0 && now - gapSince > GAP_LIMIT) {
        throw new IllegalStateException("events are missing from the stream: they have expired");
      }
      long patience = gapSince != 0 ? GAP_PATIENCE : SILENCE_PATIENCE[Math.min(silences, 3)];
      byte[] data = live.poll(patience, TimeUnit.MILLISECONDS);
      if (data == null) silences++;
      if (data == null || data == CATCH_UP) {
        behind = true;
        continue;
      }
      silences = 0;
      Batch.Event last = add(data, hear);
      if (last != null) return last;
    }
  }

  /** The terminal event once it is due. */
  private Batch.Event add(byte[] data, Consumer<Batch.Event> hear) {
    Batch batch = Batch.of(data);
    if (batch == null) return null;
    for (Batch.Event event : merger.add(batch)) {
      hear.accept(event);
      if (event.isTerminal()) return event;
    }
    return null;
  }

  /** What the stream has beyond what was read of it before. A silent broker is asked again later. */
  private List<byte[]> replay() throws InterruptedException {
    List<byte[]> batches = new ArrayList<>();
    boolean more = true;
    while (more) {
      String request =
          "{\"seq\":%d,\"batch\":1000,\"next_by_subj\":\"%s\"}".formatted(readUntil + 1, subject);
      String inbox = connection.createInbox();
      Subscription replies = connection.subscribe(inbox);
      connection.publish("$JS.API.DIRECT.GET." + stream, inbox, request.getBytes(StandardCharsets.UTF_8));
      more = false;
      for (Message message; (message = replies.nextMessage(Duration.ofSeconds(5))) != null; ) {
        if (message.isStatusMessage()) { // 204: the end of this page; 404: nothing there; 503: nobody answers
          String pending = header(message, "Nats-Num-Pending");
          more = message.getStatus().getCode() == 204 && pending != null && Long.parseLong(pending) > 0;
          break;
        }
        readUntil = Long.parseLong(header(message, "Nats-Sequence"));
        batches.add(message.getData());
      }
      replies.unsubscribe();
    }
    return batches;
  }

  private static String header(Message message, String name) {
    return message.hasHeaders() ? message.getHeaders().getFirst(name) : null;
  }
}
