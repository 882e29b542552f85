package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	version     = 2
	gapPatience = 200 * time.Millisecond
	gapDoubt    = time.Second
	gapExpired  = 10 * time.Second
	gapLimit    = 30 * time.Second
	apiTimeout  = 5 * time.Second
)

var silencePatience = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second}

var terminal = map[string]bool{
	"run_completed": true, "run_failed": true, "run_cancelled": true, "run_suspended": true, "run_absorbed": true,
}

var positions = regexp.MustCompile(`^([0-9]{1,16})-([0-9]{1,16})$`)

// Position is how far a listener came: after the event `seq` of `attempt`.
type Position struct{ attempt, seq int }

// ParsePosition reads a position such as "1-17"; none is the start.
func ParsePosition(text string) (Position, error) {
	if text == "" {
		return Position{}, nil
	}
	match := positions.FindStringSubmatch(text)
	if match == nil {
		return Position{}, fmt.Errorf("%s is not a position", text)
	}
	attempt, _ := strconv.Atoi(match[1])
	seq, _ := strconv.Atoi(match[2])
	return Position{attempt, seq}, nil
}

// Listener listens to one run: live events, and replay wherever they leave a hole.
type Listener struct {
	connection *nats.Conn
	stream     string
	subject    string
	behind     bool // something was, or may have been, said that was not heard
	readUntil  uint64
	read       map[int]bool // the attempts that were read from the stream
	isEnded    bool         // whether a terminal event was: all that was before it is stored
	merger     *Merger
	doubted    *Merger  // the merger before it began anew, until something differs
	known      Position // what a listener that came this far knows is left out
	last       int
	live       chan *nats.Msg
	reconnects chan struct{}
}

// Listen begins to listen: call it before the turn is published.
func Listen(connection *nats.Conn, namespace, subject string, behind bool, after Position) (*Listener, error) {
	listener := &Listener{
		connection: connection, stream: namespace + "-EVENTS", subject: subject, behind: behind, known: after,
		read: map[int]bool{}, merger: NewMerger(), live: make(chan *nats.Msg, 1024),
		reconnects: make(chan struct{}, 1),
	}
	connection.SetReconnectHandler(func(*nats.Conn) {
		select {
		case listener.reconnects <- struct{}{}:
		default:
		}
	})
	_, err := connection.ChanSubscribe(subject, listener.live)
	return listener, err
}

// Position is where the last event that was handed out is.
func (l *Listener) Position() string {
	if l.last == 0 {
		return fmt.Sprintf("%d-%d", l.known.attempt, l.known.seq)
	}
	return fmt.Sprintf("%d-%d", l.merger.AttemptOf(l.last), l.last)
}

// Events calls `hear` with the run's events in order, up to the terminal one, which it returns.
func (l *Listener) Events(hear func(Event)) (Event, error) {
	var gapSince time.Time
	silences, isDoubtful := 0, false
	for {
		if l.merger.mustReread {
			l.merger.mustReread = false
			l.readAll()
		}
		if l.behind {
			l.behind = false
			for _, batch := range l.replay() {
				if last, err := l.add(batch, hear); last != nil || err != nil {
					return value(last), err
				}
			}
			if l.isEnded || (!gapSince.IsZero() && time.Since(gapSince) > gapExpired) {
				if last := l.handOut(l.merger.Skip(), hear); last != nil {
					return *last, nil
				}
			}
			if silences > 0 && l.merger.HasUnread(l.read) {
				l.beginAnew()
			}
			if l.behind || l.merger.mustReread {
				continue
			}
		}
		patience := silencePatience[min(silences, len(silencePatience)-1)]
		if !l.merger.HasGap() {
			gapSince, isDoubtful = time.Time{}, false
		} else if patience = gapPatience; gapSince.IsZero() {
			gapSince = time.Now()
		} else if time.Since(gapSince) > gapLimit {
			return Event{}, errors.New("events are missing from the stream: they have expired")
		} else if time.Since(gapSince) > gapDoubt && !isDoubtful {
			isDoubtful = true
			l.beginAnew()
			continue
		}
		select {
		case message := <-l.live:
			silences = 0
			if batch := parsed(message.Data); batch != nil {
				if last, err := l.add(*batch, hear); last != nil || err != nil {
					return value(last), err
				}
			}
		case <-l.reconnects: // the connection was away: something may have been missed
			l.behind = true
		case <-time.After(patience):
			silences++
			l.behind = true
		}
	}
}

func value(event *Event) Event {
	if event == nil {
		return Event{}
	}
	return *event
}

// Nil for what is no event batch at all.
func parsed(data []byte) *Batch {
	batch := Batch{Version: version, Attempt: 1, Since: 1}
	if json.Unmarshal(data, &batch) != nil {
		return nil
	}
	return &batch
}

// Returns the terminal event once it is due.
func (l *Listener) add(batch Batch, hear func(Event)) (*Event, error) {
	if batch.Version != version {
		return nil, fmt.Errorf("event batch of version %d: upgrade this client", batch.Version)
	}
	return l.handOut(l.merger.Add(batch), hear), nil
}

func (l *Listener) handOut(due []Event, hear func(Event)) *Event {
	for _, event := range l.news(due) {
		l.last = event.Seq
		hear(event)
	}
	if len(due) > 0 && terminal[due[len(due)-1].Type] {
		return &due[len(due)-1]
	}
	return nil
}

// Leaves out what is known: up to a position, or from before the listener began anew.
func (l *Listener) news(due []Event) []Event {
	if l.doubted != nil {
		for len(due) > 0 && l.doubted.AttemptOf(due[0].Seq) == l.merger.AttemptOf(due[0].Seq) {
			due = due[1:]
		}
		if len(due) > 0 {
			l.doubted = nil
		}
	}
	if l.known != (Position{}) {
		for len(due) > 0 && due[0].Seq <= l.known.seq && l.merger.AttemptOf(due[0].Seq) <= l.known.attempt {
			due = due[1:]
		}
		if len(due) > 0 {
			l.known = Position{}
		}
	}
	return due
}

// By what is stored alone: what is heard and never stored may have made void what stands.
func (l *Listener) beginAnew() {
	if l.doubted == nil {
		l.doubted = l.merger
	}
	l.merger = NewMerger()
	l.readAll()
}

func (l *Listener) readAll() { l.behind, l.readUntil = true, 0 }

// What the stream has beyond what was read of it before.
func (l *Listener) replay() (batches []Batch) {
	for more := true; more; {
		request, _ := json.Marshal(map[string]any{
			"seq": l.readUntil + 1, "batch": 1000, "max_bytes": 4 << 20, "next_by_subj": l.subject,
		})
		inbox := l.connection.NewInbox()
		replies, err := l.connection.SubscribeSync(inbox)
		if err != nil || l.connection.PublishRequest("$JS.API.DIRECT.GET."+l.stream, inbox, request) != nil {
			return batches
		}
		for {
			message, err := replies.NextMsg(apiTimeout)
			if err != nil { // a broker that does not answer is asked again after the next silence
				more = false
				break
			}
			sequence, err := strconv.ParseUint(message.Header.Get("Nats-Sequence"), 10, 64)
			if err != nil { // a status, which ends this page
				pending, _ := strconv.Atoi(message.Header.Get("Nats-Num-Pending"))
				more = message.Header.Get("Status") == "204" && pending > 0
				break
			}
			l.readUntil = sequence
			if batch := parsed(message.Data); batch != nil && len(batch.Events) > 0 {
				l.read[batch.Attempt] = true
				l.isEnded = l.isEnded || terminal[batch.Events[len(batch.Events)-1].Type]
				batches = append(batches, *batch)
			}
		}
		_ = replies.Unsubscribe()
	}
	return batches
}
