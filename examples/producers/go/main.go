// A producer without a line of Python: it speaks docs/protocol.md. How it is used: ../README.md.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	patience    = 15 * time.Second // for which a turn is offered to a broker that does not answer
	ackPatience = 2 * time.Second
	backlogFull = 75
	usage       = `usage: producer SESSION TEXT [RUN_ID]
       producer --answer SESSION ROOT WAIT ANSWER [RUN_ID]
       producer --attach SESSION RUN_ID [POSITION]
       producer --cancel SESSION RUN_ID [WHY]
       producer --merge`
)

var (
	errUsage       = errors.New(usage)
	errBacklogFull = errors.New(
		"backlog full: the session has as many unfinished turns as it may: wait until one has ended")
	exit = map[string]int{
		"run_completed": 0, "run_failed": 1, "run_cancelled": 3, "run_suspended": 4, "run_absorbed": 5,
	}
	// A cluster that has no leader now, or is about to take the same message.
	notNow    = map[int]bool{10008: true, 10009: true, 10118: true, 10119: true, 10158: true}
	namespace = setting("ATTO_NAMESPACE", "atto")
)

func setting(name, otherwise string) string {
	if value, there := os.LookupEnv(name); there {
		return value
	}
	return otherwise
}

// An id as one token of a subject: each byte outside [A-Za-z0-9_-] becomes =XX.
func token(id string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	var encoded strings.Builder
	for _, octet := range []byte(id) {
		if strings.IndexByte(plain, octet) >= 0 {
			encoded.WriteByte(octet)
		} else {
			fmt.Fprintf(&encoded, "=%02X", octet)
		}
	}
	return encoded.String()
}

// A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits.
func newRunID() string {
	var id [16]byte
	_, _ = rand.Read(id[6:])
	milliseconds := time.Now().UnixMilli()
	for at := range 6 {
		id[at] = byte(milliseconds >> (40 - 8*at))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Returns once the broker has stored the message. The same `id` may be published again: it is stored once.
func publish(connection *nats.Conn, subject string, body map[string]any, id string) error {
	message := nats.NewMsg(subject)
	message.Data, _ = json.Marshal(body)
	if id != "" {
		message.Header.Set("Nats-Msg-Id", id)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		reply, err := connection.RequestMsg(message, ackPatience)
		if err != nil { // whether the turn was taken is unknown, so it is offered again
			if time.Now().After(deadline) {
				return err
			}
			continue
		}
		var answer struct {
			Error *struct {
				Code        int    `json:"err_code"`
				Description string `json:"description"`
			} `json:"error"`
		}
		if err := json.Unmarshal(reply.Data, &answer); err != nil || answer.Error == nil {
			return err
		}
		if answer.Error.Code == 10077 && strings.Contains(answer.Error.Description, "per subject") {
			return errBacklogFull
		}
		if notNow[answer.Error.Code] && time.Now().Before(deadline) {
			continue
		}
		return errors.New(answer.Error.Description)
	}
}

func listen(connection *nats.Conn, session, run string, behind bool, after Position) (*Listener, error) {
	return Listen(connection, namespace, namespace+".event."+token(session)+"."+token(run), behind, after)
}

// Publishes a turn or an answer, and shows the events of its run.
func submit(connection *nats.Conn, kind, session string, body map[string]any, rest []string) (int, error) {
	run := newRunID()
	if len(rest) > 0 {
		run = rest[0]
	}
	fmt.Fprintln(os.Stderr, "run", run)
	// Heard from the start; only a run that may have begun before has something to replay.
	listener, err := listen(connection, session, run, len(rest) > 0, Position{})
	if err != nil {
		return 2, err
	}
	// Nobody else can know the id, so nobody can take it first; it stays the same however often it is offered.
	var salt [8]byte
	_, _ = rand.Read(salt[:])
	id := fmt.Sprintf("%s.%s.%x", token(session), token(run), salt)
	body["v"], body["run_id"] = version, run
	if err := publish(connection, namespace+"."+kind+"."+token(session), body, id); err != nil {
		return 2, err
	}
	return show(listener)
}

func show(listener *Listener) (int, error) {
	defer func() { fmt.Fprintln(os.Stderr, "position", listener.Position()) }()
	last, err := listener.Events(func(event Event) { fmt.Println(string(event.JSON)) })
	if err != nil {
		return 2, err
	}
	return exit[last.Type], nil
}

func produce(words []string) (int, error) {
	flag := "--run"
	if len(words) > 0 && strings.HasPrefix(words[0], "--") {
		flag, words = words[0], words[1:]
	}
	if flag == "--merge" {
		return 0, merge()
	}
	needed := map[string]int{"--run": 2, "--attach": 2, "--cancel": 2, "--answer": 4}[flag]
	if needed == 0 || len(words) < needed {
		return 2, errUsage
	}
	connection, err := nats.Connect(
		setting("NATS_URL", nats.DefaultURL), nats.Name("atto-producer-go"),
		nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")),
		nats.CustomInboxPrefix(setting("ATTO_INBOX_PREFIX", "_INBOX")),
		nats.MaxReconnects(-1), nats.ReconnectWait(250*time.Millisecond),
	)
	if err != nil {
		return 2, err
	}
	defer connection.Close()
	session, rest := words[0], words[2:]
	switch flag {
	case "--run":
		return submit(connection, "turn", session, map[string]any{"input": words[1]}, rest)
	case "--answer":
		answers := map[string]any{words[2]: json.RawMessage(words[3])}
		resume := map[string]any{"run_id": words[1], "answers": answers}
		return submit(connection, "answer", session, map[string]any{"resume": resume}, words[4:])
	case "--attach":
		after, err := ParsePosition(strings.Join(rest, " "))
		if err != nil {
			return 2, err
		}
		listener, err := listen(connection, session, words[1], true, after)
		if err != nil {
			return 2, err
		}
		return show(listener)
	default:
		reason := map[string]any{"v": version, "reason": strings.Join(rest, " ")}
		return 0, publish(connection, namespace+".cancel."+token(session)+"."+token(words[1]), reason, "")
	}
}

// For the tests: merges what comes on standard input, and says after each line what is due and which text stands.
func merge() error {
	merger, transcript := NewMerger(), &Transcript{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var happens struct {
			Begin bool `json:"begin"`
			Skip  bool `json:"skip"`
		}
		if err := json.Unmarshal(lines.Bytes(), &happens); err != nil {
			return err
		}
		var events []Event
		switch {
		case happens.Begin:
			merger, transcript = NewMerger(), &Transcript{}
		case happens.Skip:
			events = merger.Skip()
		default:
			events = merger.Add(*parsed(lines.Bytes()))
		}
		due := []string{}
		for _, event := range events {
			transcript.Add(event)
			due = append(due, fmt.Sprintf("%d-%d", merger.AttemptOf(event.Seq), event.Seq))
		}
		says := map[string]any{"due": due, "gap": merger.HasGap(), "reread": merger.mustReread, "text": transcript.Text()}
		merger.mustReread = false
		line, _ := json.Marshal(says)
		fmt.Println(string(line))
	}
	return lines.Err()
}

func main() {
	code, err := produce(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 2
		if errors.Is(err, errBacklogFull) {
			code = backlogFull
		}
	}
	os.Exit(code)
}
