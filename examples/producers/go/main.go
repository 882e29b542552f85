// A producer without a line of Python: it speaks docs/protocol.md.
//
//	producer SESSION TEXT [RUN_ID]          submits a turn and prints its events, one JSON line each
//	producer --attach SESSION RUN_ID        prints a run's events, from the first one on
//	producer --cancel SESSION RUN_ID [WHY]  ends a run
//
// The environment: NATS_URL, NATS_USER, NATS_PASSWORD, ATTO_NAMESPACE, ATTO_INBOX_PREFIX.
// Exit codes: 0 completed, 1 failed, 2 wrong use or no broker, 3 cancelled, 75 the session's backlog is full.
package main

import (
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
	backlogFull = 75
	usage       = "usage: producer [--attach | --cancel] SESSION TEXT | RUN_ID"
)

var (
	errUsage       = errors.New(usage)
	errBacklogFull = errors.New(
		"backlog full: the session has as many unfinished turns as it may: wait until one has ended")
	exit      = map[string]int{"run_completed": 0, "run_failed": 1, "run_suspended": 1, "run_cancelled": 3}
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
func publish(connection *nats.Conn, subject string, body map[string]string, id string) error {
	message := nats.NewMsg(subject)
	message.Data, _ = json.Marshal(body)
	if id != "" {
		message.Header.Set("Nats-Msg-Id", id)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		reply, err := connection.RequestMsg(message, apiTimeout)
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
		return errors.New(answer.Error.Description)
	}
}

func listen(connection *nats.Conn, session, run string, behind bool) (*Listener, error) {
	return Listen(connection, namespace, namespace+".event."+token(session)+"."+token(run), behind)
}

func submit(connection *nats.Conn, session, text string, rest []string) (int, error) {
	run := newRunID()
	if len(rest) > 0 {
		run = rest[0]
	}
	fmt.Fprintln(os.Stderr, "run", run)
	// Heard from the start; only a run that may have begun before has something to replay.
	listener, err := listen(connection, session, run, len(rest) > 0)
	if err != nil {
		return 2, err
	}
	turn := map[string]string{"input": text, "run_id": run}
	id := token(session) + "." + token(run)
	if err := publish(connection, namespace+".turn."+token(session), turn, id); err != nil {
		return 2, err
	}
	return show(listener)
}

func show(listener *Listener) (int, error) {
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
	if len(words) < 2 {
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
		return submit(connection, session, words[1], rest)
	case "--attach":
		listener, err := listen(connection, session, words[1], true)
		if err != nil {
			return 2, err
		}
		return show(listener)
	case "--cancel":
		reason := map[string]string{"reason": strings.Join(rest, " ")}
		return 0, publish(connection, namespace+".cancel."+token(session)+"."+token(words[1]), reason, "")
	}
	return 2, errUsage
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
