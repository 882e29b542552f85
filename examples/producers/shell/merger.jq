# One run's event batches, one a line, as the one sequence they are: docs/protocol.md, "Merging".
# For each batch: the events that it makes due, one a line, and then {"listener": {gap, reread, ended}}; what is
# no event batch makes nothing due. Ends with an error at a batch of another version.

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

def terminal: IN("run_completed", "run_failed", "run_cancelled", "run_suspended");

foreach inputs as $batch ({next: 1, since: {}, early: {}, said: [], due: [], reread: false};
  .due = [] | .reread = false
  | if $batch | type == "object" and (.events | type == "array") then
      if ($batch.v // 2) != 2 then error("event batch of version \($batch.v): upgrade this client") else . end |
      ($batch | {attempt: (.attempt // 1), since: (.since // 1), events}) as $batch
      | (if .since[$batch.attempt | tostring] == null then hear_of($batch.attempt; $batch.since) else . end)
      | hold($batch) | hand_out
    else . end;
  .due[], {listener: {gap: (.early | length > 0), reread, ended: (first(.due[].type | select(terminal)) // null)}})
