# One run's event batches, one a line, as the one sequence they are: docs/protocol.md, "Merging".
#
# A line is an event batch that was heard, {"stored": …} that was read from the stream, {"skip": whether what is missing
# will not come any more} at the end of a replay, {"anew": true} to begin anew from what is stored, or {"begin": true}
# for another run. For each, the events that are due, one a line, and then {"listener": …}; what is no event batch makes
# nothing due. Ends with an error at a batch of another version. `$after`: what a listener that came as far as this
# position knows is left out.

def terminal: IN("run_completed", "run_failed", "run_cancelled", "run_suspended", "run_absorbed");
def delta: IN("text_delta", "reasoning_delta");

def attempt_of($seq): if $seq >= .next then 0 else ([.said[] | select(.first <= $seq)] | last.attempt) // 0 end;

def hear_of($attempt; $since):
  .since[$attempt | tostring] = $since
  | .early |= with_entries(select(.value.attempt >= $attempt or (.key | tonumber) < $since))
  | . as $m
  | first((range(0; $m.said | length) | . as $at
      | select($m.said[$at].attempt < $attempt and $since < ($m.said[$at + 1].first // $m.next))), null) as $at
  | if $at == null then . else
      $m.said[$at].first as $first
      | .next = ([$first, $since] | max)
      | .reread = (.reread or any($m.said[$at:][]; .attempt > $attempt))
      | .said = $m.said[:(if $since > $first then $at + 1 else $at end)]
    end;

def hold($batch):
  ([.since | to_entries[] | select((.key | tonumber) > $batch.attempt) | .value] | min) as $limit
  | reduce $batch.events[] as $event (.;
      ($event.seq | tostring) as $seq
      | if $event.seq >= .next and ($limit == null or $event.seq < $limit)
          and (.early[$seq] == null or .early[$seq].attempt < $batch.attempt)
        then .early[$seq] = {attempt: $batch.attempt, event: $event} else . end);

def hand_out:
  until(.early[.next | tostring] == null;
    (.next | tostring) as $seq
    | .early[$seq] as $held
    | (if .said[-1].attempt != $held.attempt then .said += [{first: .next, attempt: $held.attempt}] else . end)
    | .due += [$held.event]
    | del(.early[$seq])
    | .next += 1);

# Whether a record that is here says that only deltas are missing.
def covered: . as $m | any(.early[].event; (.type | delta | not) and (.first // .seq) <= $m.next);

def skip: until(covered | not; .next = ([.early | keys[] | tonumber] | min) | hand_out);

def merge($batch):
  if ($batch.v // 2) != 2 then error("event batch of version \($batch.v): upgrade this client") else . end
  | ($batch | {attempt: (.attempt // 1), since: (.since // 1), events}) as $batch
  | (if .since[$batch.attempt | tostring] == null then hear_of($batch.attempt; $batch.since) else . end)
  | hold($batch) | hand_out;

# The text that stands.

def is_voided($path; $step):
  if .path == $path then .text != null and .step >= $step else
    (if $path == "" then "" else "\($path)/" end) as $prefix
    | (.path | startswith($prefix))
      and ((.path[($prefix | length):] | capture("^(?<step>[0-9]+):") // null).step // "-1" | tonumber) >= $step
  end;

def write($event):
  ($event | {seq, path: (.path // ""), step}) as $where
  | map(select(.seq < $event.seq)) # a number that comes again voids what was said from it on
  | if $event.type == "text_delta" then . + [$where + {text: $event.text}]
    elif $event.type == "model_completed" then
      . + [$where + {text: ([$event.message.content[] | select(.type == "text").text] | add // ""), whole: true}]
    elif $event.type == "agent_started" and $event.speaks then . + [$where] # without a text
    elif $event.type == "step_restarted" then map(select(is_voided($where.path; $where.step) | not))
    else . end;

def text:
  ["", (.[] | select(.text == null).path)] as $speaking
  | [.[] | select(.whole) | {path, step}] as $whole
  | [.[] | select(.text != null and (.path | IN($speaking[])))
      | select(.whole or ({path, step} | IN($whole[]) | not)).text] | add // "";

def merger: {next: 1, since: {}, early: {}, said: [], due: [], reread: false};
def listener:
  {merger: merger, doubted: null, known: $after, last: null, text: [], due: [], news: [], read: {}, is_ended: false};

def is_batch: type == "object" and (.events | type == "array");

# What was read of the stream: attempts, and whether a terminal event was among it.
def note_read($batch):
  if $batch.events == [] then . else
    .read[$batch.attempt // 1 | tostring] = true
    | .is_ended = (.is_ended or ($batch.events[-1].type | terminal))
  end;

# Leaves out what is known: up to a position, or from before the listener began anew.
def news:
  . as $l
  | .news = .merger.due
  | if .doubted == null then . else
      .news |= (until(length == 0 or (.[0].seq as $seq | $l
        | (.doubted | attempt_of($seq)) != (.merger | attempt_of($seq))); .[1:]))
      | if .news == [] then . else .doubted = null end
    end
  | if .known == null then . else
      .news |= (until(length == 0 or (.[0].seq as $seq | $l
        | $seq > .known.seq or (.merger | attempt_of($seq)) > .known.attempt); .[1:]))
      | if .news == [] then . else .known = null end
    end
  | .last = (.news[-1].seq // .last)
  | .text = reduce .news[] as $event (.text; write($event));

def position:
  if .last == null then "\(.known.attempt // 0)-\(.known.seq // 0)" else
    .last as $last | "\(.merger | attempt_of($last))-\($last)"
  end;

foreach inputs as $line (listener;
  (.merger | .due = [] | .reread = false) as $merger
  | .merger = $merger
  | if $line | type != "object" then .
    elif $line.begin then listener
    elif $line.anew then .doubted = (.doubted // .merger) | .merger = merger
    elif $line | has("skip") then if .is_ended or $line.skip then .merger |= skip else . end
    elif $line.stored | is_batch then note_read($line.stored) | .merger |= merge($line.stored)
    elif $line | is_batch then .merger |= merge($line)
    else . end
  | news;
  .news[], {listener: {
    gap: (.merger.early | length > 0), reread: .merger.reread, position: position,
    unread: ((.merger.since | keys) - (.read | keys) != []), # whether an attempt was heard of that was not read
    ended: (.merger.due[-1].type // "" | if terminal then . else null end),
    due: (. as $l | [.news[].seq as $seq | "\($l.merger | attempt_of($seq))-\($seq)"]), text: (.text | text)}})
