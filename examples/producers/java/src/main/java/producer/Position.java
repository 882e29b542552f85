package producer;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** How far a listener came: after the event {@code seq} of {@code attempt}. */
record Position(long attempt, int seq) {

  static final Position START = new Position(0, 0);

  private static final Pattern FORM = Pattern.compile("([0-9]{1,16})-([0-9]{1,9})");

  /** Of text such as "1-17". */
  static Position of(String text) {
    Matcher match = FORM.matcher(text);
    if (!match.matches()) throw new IllegalArgumentException(text + " is not a position");
    return new Position(Long.parseLong(match.group(1)), Integer.parseInt(match.group(2)));
  }

  @Override
  public String toString() {
    return attempt + "-" + seq;
  }
}
