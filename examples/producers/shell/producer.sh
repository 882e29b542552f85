#!/usr/bin/env bash
# A producer in plain bash (4.4 or newer) and jq, without a NATS client: it speaks the text protocol of NATS
# (https://docs.nats.io/reference/reference-protocols/nats-protocol) and docs/protocol.md. How it is used: ../README.md.
set -euo pipefail
export LC_ALL=C # lengths are bytes

namespace=${ATTO_NAMESPACE:-atto}
inbox=${ATTO_INBOX_PREFIX:-_INBOX}.$$-$RANDOM$RANDOM
here=$(dirname "$0")

fail() { # CODE MESSAGE
  echo "$2" >&2
  exit "$1"
}

# An id as one token of a subject: each byte outside [A-Za-z0-9_-] becomes =XX.
token() {
  local id=$1 at character
  for ((at = 0; at < ${#id}; at++)); do
    character=${id:at:1}
    case $character in
    [A-Za-z0-9_-]) printf %s "$character" ;;
    *) printf '=%02X' "'$character" | sed 's/F\{14\}//' ;; # bash counts bytes above 127 as negative
    esac
  done
}

# A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits.
new_run_id() {
  local random
  random=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
  printf '%012x' "$(date +%s%3N)" | sed 's/\(.\{8\}\)\(.*\)/\1-\2/' | tr -d '\n'
  printf -- '-7%s-%x%s-%s\n' "${random:0:3}" $((8 + 0x${random:3:1} % 4)) "${random:4:3}" "${random:7:12}"
}

send() { printf '%s\r\n' "$@" >&3; }

publish() { # SUBJECT REPLY BODY [HEADERS, each ended by CR LF]
  if [ -n "${4-}" ]; then
    local head="NATS/1.0"$'\r\n'"$4"$'\r\n'
    send "HPUB $1 $2 ${#head} $((${#head} + ${#3}))" "$head$3"
  else
    send "PUB $1 $2 ${#3}" "$3"
  fi
}

# Reads the next message within SECONDS into `subject`, `headers` and `body`; 1: none came.
receive() { # SECONDS
  local line kind words size head deadline=$((SECONDS + ${1%.*} + 1))
  while ((SECONDS <= deadline)); do
    IFS= read -r -t "$1" line <&3 || { (($? > 128)) && return 1 || fail 2 "error: the connection was lost"; }
    line=${line%$'\r'}
    read -r -a words <<<"$line"
    kind=${words[0]-} headers=
    case $kind in
    PING) send PONG ;;
    -ERR) fail 2 "error: $line" ;;
    MSG | HMSG)
      subject=${words[1]} size=${words[-1]}
      if [ "$kind" = HMSG ]; then
        head=${words[-2]}
        IFS= read -r -N "$head" headers <&3
        size=$((size - head))
      fi
      body=
      ((size == 0)) || IFS= read -r -N "$size" body <&3
      IFS= read -r line <&3 # the CR LF behind the body
      return 0
      ;;
    esac
  done
  return 1
}

header() { sed -n "s/^$1: *\([^\r]*\).*/\1/p" <<<"$headers"; }

connect() {
  local url=${NATS_URL:-nats://127.0.0.1:4222} address login='{}' line
  address=${url#*://}
  address=${address%%/*}
  exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || fail 2 "error: no broker at $url"
  read -r line <&3 # INFO
  if [ -n "${NATS_USER-}" ]; then
    login=$(jq -nc --arg user "$NATS_USER" --arg pass "${NATS_PASSWORD-}" '{$user, $pass}')
  fi
  send "CONNECT $(jq -nc --argjson login "$login" '$login + {verbose: false, pedantic: false, protocol: 1,
    headers: true, no_responders: true, name: "atto-producer-sh", lang: "bash", version: "0"}')"
  send "SUB $inbox.* 1"
}

# Returns once the broker has stored the message, offered again for 15 s under the same id.
store() { # SUBJECT BODY [ID]
  local deadline=$((SECONDS + 15)) problem
  while ((SECONDS < deadline)); do
    publish "$1" "$inbox.ack" "$2" "${3:+Nats-Msg-Id: $3$'\r\n'}"
    while receive 2; do
      case $subject in
      "$inbox.ack")
        [ -n "$body" ] || break # nobody there to take it: it is offered again
        problem=$(jq -r '.error // empty | "\(.err_code) \(.description)"' <<<"$body")
        case $problem in
        "") return ;;
        10008\ * | 10009\ * | 10118\ * | 10119\ * | 10158\ *) break ;; # no leader now, or about to take it
        "10077 "*"per subject"*)
          fail 75 "backlog full: the session has as many unfinished turns as it may: wait until one has ended"
          ;;
        *) fail 2 "error: $problem" ;;
        esac
        ;;
      *) heard+=("$body") ;; # events come in already
      esac
    done
    sleep 0.1
  done
  fail 2 "error: the broker did not say whether it took the turn"
}

# Gives a line to the merger and prints what is due; sets what it says. Ends with the run.
tell() { # JSON
  local line again=$reread
  echo "$1" >&"${merger[1]}"
  while true; do
    IFS= read -r line <&"${merger[0]}" || exit 2 # the merger has said why
    case $line in '{"listener":'*) break ;; *) echo "$line" ;; esac
  done
  read -r gap reread ended position unread < <(
    jq -r '.listener | "\(.gap) \(.reread) \(.ended) \(.position) \(.unread)"' <<<"$line"
  )
  if [ "$again" = true ]; then reread=true; fi
  case $ended in
  null) ;;
  run_completed) exit 0 ;;
  run_cancelled) exit 3 ;;
  run_suspended) exit 4 ;;
  run_absorbed) exit 5 ;;
  *) exit 1 ;;
  esac
}

merge() { # BODY FORM: what it is told, as an expression of jq
  local line
  line=$(jq -cs "select(length == 1)[0] | $2" <<<"$1" 2>/dev/null) && [ -n "$line" ] || return 0 # no JSON at all
  tell "$line"
}

begin_anew() { # by what is stored alone: what is heard and never stored may have made void what stands
  tell '{"anew":true}'
  reread=true
}

replay() { # SUBJECT: what the stream has beyond what was read of it before
  local more=true status sequence
  while [ $more = true ]; do
    more=false
    publish "\$JS.API.DIRECT.GET.$namespace-EVENTS" "$inbox.replay" \
      "{\"seq\":$((read_until + 1)),\"batch\":1000,\"max_bytes\":4194304,\"next_by_subj\":\"$1\"}"
    while receive 5; do
      sequence=$(header Nats-Sequence)
      if [ "$subject" != "$inbox.replay" ] && [ -z "$sequence" ]; then
        heard+=("$body")
        continue
      fi
      if [ -n "$sequence" ]; then
        read_until=$sequence
        replayed+=("$body")
        continue
      fi
      status=${headers%%$'\r'*} # which ends this page
      case ${status#NATS/1.0} in
      " 204"*) (($(header Nats-Num-Pending) == 0)) || more=true ;;
      esac
      break
    done
  done
}

# Prints the run's events in order, up to the terminal one, whose exit code is the script's.
listen() { # SUBJECT BEHIND [POSITION]
  local behind=$2 after=null gap=false reread=false ended=null unread=false doubtful=false
  local patience silences=0 gap_since=0 line
  local read_until=0 patiences=(1 2 5 10) replayed=() lines=()
  position=${3-0-0}
  [[ $position =~ ^[0-9]{1,16}-[0-9]{1,16}$ ]] || fail 2 "error: $position is not a position"
  if [ "$position" != 0-0 ]; then after="{\"attempt\":${position%-*},\"seq\":${position#*-}}"; fi
  coproc merger { jq -cn --unbuffered --argjson after "$after" -f "$here/merger.jq"; }
  trap 'echo "position $position" >&2' EXIT
  while true; do
    if [ $reread = true ]; then behind=true read_until=0 reread=false; fi
    if [ $behind = true ]; then
      behind=false
      replay "$1"
      for line in ${replayed[@]+"${replayed[@]}"}; do merge "$line" '{stored: .}'; done
      replayed=()
      if ((gap_since && SECONDS - gap_since > 10)); then tell '{"skip":true}'; else tell '{"skip":false}'; fi
      if ((silences)) && [ "$unread" = true ]; then begin_anew; fi
    fi
    lines=(${heard[@]+"${heard[@]}"}) heard=()
    for line in ${lines[@]+"${lines[@]}"}; do merge "$line" .; done
    if [ $reread = true ]; then continue; fi
    if [ $gap = true ]; then
      ((gap_since)) || gap_since=$SECONDS
      ((SECONDS - gap_since <= 30)) || fail 2 "error: events are missing from the stream: they have expired"
      if ((SECONDS - gap_since > 1)) && [ $doubtful = false ]; then
        doubtful=true
        begin_anew
        continue
      fi
      patience=0.2
    else
      gap_since=0 doubtful=false patience=${patiences[silences > 3 ? 3 : silences]}
    fi
    if receive "$patience"; then
      silences=0
      heard+=("$body")
    else
      silences=$((silences + 1)) behind=true
    fi
  done
}

# Publishes a turn or an answer, and prints the events of its run.
submit() { # KIND FIELDS [RUN_ID]
  local run=${3-$(new_run_id)} salt body
  echo "run $run" >&2
  # Heard from the start; only a run that may have begun before has something to replay.
  send "SUB $namespace.event.$session.$(token "$run") 2"
  # Nobody else can know the id, so nobody can take it first; it stays the same however often it is offered.
  salt=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
  body=$(jq -nc --argjson fields "$2" --arg run_id "$run" '{v: 2, $run_id} + $fields')
  store "$namespace.$1.$session" "$body" "$session.$(token "$run").$salt"
  listen "$namespace.event.$session.$(token "$run")" "$([ $# -ge 3 ] && echo true || echo false)"
}

usage="usage: producer.sh SESSION TEXT [RUN_ID]
       producer.sh --answer SESSION ROOT WAIT ANSWER [RUN_ID]
       producer.sh --attach SESSION RUN_ID [POSITION]
       producer.sh --cancel SESSION RUN_ID [WHY]
       producer.sh --merge"
flag=--run needed=2
case ${1-} in --*) flag=$1 && shift ;; esac
case $flag in
--run | --attach | --cancel) ;;
--answer) needed=4 ;;
--merge) # for the tests: merges standard input, and says after each line what is due and which text stands
  jq -cn --argjson after null -f "$here/merger.jq" | jq -c '.listener // empty | {due, gap, reread, text}'
  exit
  ;;
*) fail 2 "$usage" ;;
esac
[ $# -ge $needed ] || fail 2 "$usage"
session=$(token "$1") heard=()
connect
case $flag in
--run)
  submit turn "$(jq -nc --arg input "$2" '{$input}')" "${@:3:1}"
  ;;
--answer)
  fields=$(jq -nc --arg run_id "$2" --arg wait "$3" --argjson answer "$4" \
    '{resume: {$run_id, answers: {($wait): $answer}}}')
  submit answer "$fields" "${@:5:1}"
  ;;
--attach)
  send "SUB $namespace.event.$session.$(token "$2") 2"
  listen "$namespace.event.$session.$(token "$2")" true "${@:3:1}"
  ;;
--cancel)
  store "$namespace.cancel.$session.$(token "$2")" "$(jq -nc --arg reason "${*:3}" '{v: 2, $reason}')"
  ;;
esac
