package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	gapPatience = 200 * time.Millisecond
	gapLimit    = 30 * time.Second
	apiTimeout  = 5 * time.Second
)

var silencePatience = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second}

var terminal = map[string]bool{
	"run_completed": true, "run_failed": true, "run_cancelled": true, "run_suspended": true,
}

// Listener listens to one run: live events, and replay wherever they leave a hole.
type Listener struct {
	connection *nats.Conn
	stream     string
	subject    string
	behind     bool // something was, or may have been, said that was not heard
	readUntil  uint64
	merger     *Merger
	live       chan *nats.Msg
	reconnects chan struct{}
}

// Listen begins to listen: call it before the turn is published.
func Listen(connection *nats.Conn, namespace, subject string, behind bool) (*Listener, error) {
	listener := &Listener{
		connection: connection, stream: namespace + "-EVENTS", subject: subject, behind: behind,
		merger: NewMerger(), live: make(chan *nats.Msg, 1024), reconnects: make(chan struct{}, 1),
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

// Events calls `hear` with the run's events in order, up to the terminal one, which it returns.
func (l *Listener) Events(hear func(Event)) (Event, error) {
	var gapSince time.Time
	silences := 0
	for {
		if l.merger.mustReread {
			l.merger.mustReread, l.behind, l.readUntil = false, true, 0
		}
		if l.behind {
			l.behind = false
			for _, data := range l.replay() {
				if last, err := l.add(data, hear); last != nil || err != nil {
					return value(last), err
				}
			}
			if l.merger.mustReread {
				continue
			}
		}
		patience := silencePatience[min(silences, len(silencePatience)-1)]
		if !l.merger.HasGap() {
			gapSince = time.Time{}
		} else if patience = gapPatience; gapSince.IsZero() {
			gapSince = time.Now()
		} else if time.Since(gapSince) > gapLimit {
			return Event{}, errors.New("events are missing from the stream: they have expired")
		}
		select {
		case message := <-l.live:
			silences = 0
			if last, err := l.add(message.Data, hear); last != nil || err != nil {
				return value(last), err
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

// Returns the terminal event once it is due.
func (l *Listener) add(data []byte, hear func(Event)) (*Event, error) {
	batch := Batch{Version: 2, Attempt: 1, Since: 1}
	if err := json.Unmarshal(data, &batch); err != nil {
		return nil, nil // no event batch at all
	}
	if batch.Version != 2 {
		return nil, fmt.Errorf("event batch of version %d: upgrade this client", batch.Version)
	}
	for _, event := range l.merger.Add(batch) {
		hear(event)
		if terminal[event.Type] {
			return &event, nil
		}
	}
	return nil, nil
}

// What the stream has beyond what was read of it before. A broker that does not answer is asked again later.
func (l *Listener) replay() (batches [][]byte) {
	for more := true; more; {
		request, _ := json.Marshal(map[string]any{
			"seq": l.readUntil + 1, "batch": 1000, "next_by_subj": l.subject,
		})
		inbox := l.connection.NewInbox()
		replies, err := l.connection.SubscribeSync(inbox)
		if err != nil || l.connection.PublishRequest("$JS.API.DIRECT.GET."+l.stream, inbox, request) != nil {
			return batches
		}
		for {
			message, err := replies.NextMsg(apiTimeout)
			status := ""
			if err == nil {
				status = message.Header.Get("Status")
			}
			if err != nil || status != "" {
				pending := 0
				if status == "204" { // the end of this page; 404: nothing there; 503: nobody answers
					pending, _ = strconv.Atoi(message.Header.Get("Nats-Num-Pending"))
				}
				more = pending > 0
				break
			}
			l.readUntil, _ = strconv.ParseUint(message.Header.Get("Nats-Sequence"), 10, 64)
			batches = append(batches, message.Data)
		}
		_ = replies.Unsubscribe()
	}
	return batches
}
