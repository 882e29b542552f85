package producer;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * One run's event batches, in whatever order and however often they come, as the one sequence they are. The
 * rules: docs/protocol.md, "Merging".
 */
final class Merger {

  private record Held(long attempt, Batch.Event event) {}

  private record Said(int first, long attempt) {}

  private final Map<Long, Integer> since = new HashMap<>(); // attempt → the number of its first event
  private final Map<Integer, Held> early = new HashMap<>(); // by number: not yet due
  private final List<Said> said = new ArrayList<>(); // who said what was handed out, by number
  private int next = 1; // the number of the event that is due
  private boolean mustReread;

  /** Whether an event is missing although a later one is here. */
  boolean hasGap() {
    return !early.isEmpty();
  }

  /** Whether all of the run's batches have to be added once more; asking takes note of it. */
  boolean takeMustReread() {
    boolean was = mustReread;
    mustReread = false;
    return was;
  }

  boolean mustReread() {
    return mustReread;
  }

  /** The attempts that were heard of. */
  Set<Long> attempts() {
    return since.keySet();
  }

  /** The attempt whose event was handed out under this number; 0 if there was none. */
  long attemptOf(int seq) {
    for (int at = said.size() - 1; at >= 0 && seq < next; at--) {
      if (said.get(at).first() <= seq) return said.get(at).attempt();
    }
    return 0;
  }

  /** What is missing will not come any more: the events that are due once missing deltas are passed over. */
  List<Batch.Event> skip() {
    List<Batch.Event> due = new ArrayList<>();
    while (early.values().stream().anyMatch(this::covers)) {
      next = Collections.min(early.keySet());
      due.addAll(handOut());
    }
    return due;
  }

  /** Whether it is a record that says that only deltas are missing. */
  private boolean covers(Held held) {
    return !held.event().isDelta() && held.event().first() <= next;
  }

  /** The events that the batch makes due. */
  List<Batch.Event> add(Batch batch) {
    long attempt = batch.attempt();
    if (!since.containsKey(attempt)) hearOf(attempt, batch.since());
    int limit =
        since.entrySet().stream()
            .filter(other -> other.getKey() > attempt)
            .mapToInt(Map.Entry::getValue)
            .min()
            .orElse(Integer.MAX_VALUE);
    for (Batch.Event event : batch.events()) {
      if (event.seq() < next || event.seq() >= limit) continue;
      Held held = early.get(event.seq());
      if (held == null || held.attempt() < attempt) early.put(event.seq(), new Held(attempt, event));
    }
    return handOut();
  }

  private List<Batch.Event> handOut() {
    List<Batch.Event> due = new ArrayList<>();
    for (Held held; (held = early.remove(next)) != null; next++) {
      if (said.isEmpty() || said.get(said.size() - 1).attempt() != held.attempt()) {
        said.add(new Said(next, held.attempt()));
      }
      due.add(held.event());
    }
    return due;
  }

  /** A new attempt: what older ones said from {@code from} on is void, be it waiting or handed out. */
  private void hearOf(long attempt, int from) {
    since.put(attempt, from);
    early.entrySet().removeIf(entry -> entry.getValue().attempt() < attempt && entry.getKey() >= from);
    for (int at = 0; at < said.size(); at++) {
      Said span = said.get(at);
      int until = at + 1 < said.size() ? said.get(at + 1).first() : next;
      if (span.attempt() >= attempt || from >= until) continue;
      next = Math.max(span.first(), from);
      mustReread |= said.subList(at, said.size()).stream().anyMatch(by -> by.attempt() > attempt);
      said.subList(from > span.first() ? at + 1 : at, said.size()).clear();
      return;
    }
  }
}
