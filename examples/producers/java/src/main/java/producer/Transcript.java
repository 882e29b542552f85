package producer;

import static producer.Batch.number;
import static producer.Batch.string;

import io.nats.client.support.JsonValue;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The text that stands of a run, as its merged events come. The rules: docs/protocol.md, "The text that stands".
 */
final class Transcript {

  private static final Pattern ASKED = Pattern.compile("([0-9]+):.*", Pattern.DOTALL);

  private record Call(String path, long step) {}

  /** A piece of text, or ({@code text} is null) a child that speaks. */
  private record Said(int seq, Call call, String text, boolean isWhole) {}

  private List<Said> said = new ArrayList<>(); // by number

  /** Takes the next event. */
  void add(Batch.Event event) {
    keep(before -> before.seq() < event.seq()); // a number that comes again voids what was said from it on
    JsonValue json = event.json();
    Call call = new Call(event.path(), number(json, "step", 0));
    switch (event.type()) {
      case "text_delta":
        said.add(new Said(event.seq(), call, string(json, "text"), false));
        break;
      case "model_completed":
        said.add(new Said(event.seq(), call, textOf(json.map.get("message")), true));
        break;
      case "agent_started":
        if (isTrue(json, "speaks")) said.add(new Said(event.seq(), call, null, false));
        break;
      case "step_restarted":
        keep(before -> !isVoided(before, call));
        break;
      default:
    }
  }

  /** What the run's own agent says, and its children that speak. */
  String text() {
    Set<String> speaking = new HashSet<>(Set.of(""));
    Set<Call> whole = new HashSet<>();
    for (Said one : said) {
      if (one.text() == null) speaking.add(one.call().path());
      if (one.isWhole()) whole.add(one.call());
    }
    StringBuilder text = new StringBuilder();
    for (Said one : said) {
      boolean isShown = one.isWhole() || !whole.contains(one.call());
      if (one.text() != null && isShown && speaking.contains(one.call().path())) text.append(one.text());
    }
    return text.toString();
  }

  private void keep(Predicate<Said> stands) {
    said = new ArrayList<>(said.stream().filter(stands).toList());
  }

  /** Of that step and of later ones, and by the children that their tool calls asked. */
  private static boolean isVoided(Said said, Call restarted) {
    String path = said.call().path();
    if (path.equals(restarted.path())) return said.text() != null && said.call().step() >= restarted.step();
    String prefix = restarted.path().isEmpty() ? "" : restarted.path() + "/";
    if (!path.startsWith(prefix)) return false;
    Matcher asked = ASKED.matcher(path.substring(prefix.length()));
    return asked.matches() && Long.parseLong(asked.group(1)) >= restarted.step();
  }

  private static String textOf(JsonValue message) {
    StringBuilder whole = new StringBuilder();
    for (JsonValue part : message.map.get("content").array) {
      if (string(part, "type").equals("text")) whole.append(string(part, "text"));
    }
    return whole.toString();
  }

  private static boolean isTrue(JsonValue json, String field) {
    JsonValue value = json.map.get(field);
    return value != null && Boolean.TRUE.equals(value.bool);
  }
}
