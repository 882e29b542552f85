package main

import (
	"encoding/json"
	"math"
)

// Event is an event as it came, and what the merger, the transcript and the listener need to know of it.
type Event struct {
	Seq     int     `json:"seq"`
	First   int     `json:"first"` // 0: its own number
	Type    string  `json:"type"`
	Path    string  `json:"path"`
	Step    int     `json:"step"`
	Text    string  `json:"text"`
	Speaks  bool    `json:"speaks"`
	Message message `json:"message"`
	JSON    json.RawMessage
}

type message struct {
	Content []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	} `json:"content"`
}

func (m message) text() (text string) {
	for _, part := range m.Content {
		if part.Type == "text" {
			text += part.Text
		}
	}
	return text
}

// UnmarshalJSON leaves out what is not as expected: fields of an event of an unknown type may be of any kind.
func (event *Event) UnmarshalJSON(data []byte) error {
	type head struct {
		Seq   int    `json:"seq"`
		First int    `json:"first"`
		Type  string `json:"type"`
	}
	var known head
	if err := json.Unmarshal(data, &known); err != nil {
		return err
	}
	type plain Event
	var whole plain
	if json.Unmarshal(data, &whole) != nil {
		whole = plain{Seq: known.Seq, First: known.First, Type: known.Type}
	}
	*event = Event(whole)
	event.JSON = append(json.RawMessage(nil), data...)
	return nil
}

func (event Event) isDelta() bool {
	return event.Type == "text_delta" || event.Type == "reasoning_delta"
}

// Batch is one message on an event subject.
type Batch struct {
	Version int     `json:"v"`
	Attempt int     `json:"attempt"`
	Since   int     `json:"since"`
	Events  []Event `json:"events"`
}

type held struct {
	attempt int
	event   Event
}

type said struct{ first, attempt int }

// Merger makes one run's event batches, in whatever order and however often they come, the one sequence that
// they are. The rules: docs/protocol.md, "Merging".
type Merger struct {
	next       int          // the number of the event that is due
	mustReread bool         // all of the run's batches have to be added once more
	since      map[int]int  // attempt → the number from which it speaks
	early      map[int]held // by number: not yet due
	said       []said       // who said what was handed out, by number
}

// NewMerger expects event 1.
func NewMerger() *Merger {
	return &Merger{next: 1, since: map[int]int{}, early: map[int]held{}}
}

// HasUnread tells whether an attempt was heard of that was not read from the stream.
func (m *Merger) HasUnread(read map[int]bool) bool {
	for attempt := range m.since {
		if !read[attempt] {
			return true
		}
	}
	return false
}

// AttemptOf is the attempt whose event was handed out under this number; 0 if there was none.
func (m *Merger) AttemptOf(seq int) int {
	for at := len(m.said) - 1; at >= 0 && seq < m.next; at-- {
		if m.said[at].first <= seq {
			return m.said[at].attempt
		}
	}
	return 0
}

// HasGap tells whether an event is missing although a later one is here.
func (m *Merger) HasGap() bool { return len(m.early) > 0 }

// Add returns the events that the batch makes due.
func (m *Merger) Add(batch Batch) (due []Event) {
	if _, known := m.since[batch.Attempt]; !known {
		m.hearOf(batch.Attempt, batch.Since)
	}
	for _, event := range batch.Events {
		if event.Seq < m.next || m.isVoid(batch.Attempt, event.Seq) {
			continue
		}
		if other, there := m.early[event.Seq]; !there || other.attempt < batch.Attempt {
			m.early[event.Seq] = held{batch.Attempt, event}
		}
	}
	return m.handOut()
}

// Skip passes over missing deltas, for what is missing will not come any more. It returns the events that are due then.
func (m *Merger) Skip() (due []Event) {
	for m.isCovered() {
		first := math.MaxInt
		for seq := range m.early {
			first = min(first, seq)
		}
		m.next = first
		due = append(due, m.handOut()...)
	}
	return due
}

// Whether a record that is here says that only deltas are missing.
func (m *Merger) isCovered() bool {
	for _, entry := range m.early {
		if first := entry.event.First; !entry.event.isDelta() && first > 0 && first <= m.next {
			return true
		}
	}
	return false
}

func (m *Merger) handOut() (due []Event) {
	for {
		entry, there := m.early[m.next]
		if !there {
			return due
		}
		delete(m.early, m.next)
		if len(m.said) == 0 || m.said[len(m.said)-1].attempt != entry.attempt {
			m.said = append(m.said, said{m.next, entry.attempt})
		}
		m.next++
		due = append(due, entry.event)
	}
}

func (m *Merger) isVoid(attempt, seq int) bool {
	for newer, since := range m.since {
		if newer > attempt && seq >= since {
			return true
		}
	}
	return false
}

// A new attempt: what older ones said from `since` on is void, be it waiting or handed out.
func (m *Merger) hearOf(attempt, since int) {
	m.since[attempt] = since
	for seq, entry := range m.early {
		if entry.attempt < attempt && seq >= since {
			delete(m.early, seq)
		}
	}
	for at, span := range m.said {
		until := m.next
		if at+1 < len(m.said) {
			until = m.said[at+1].first
		}
		if span.attempt >= attempt || since >= until {
			continue
		}
		m.next = max(span.first, since)
		for _, other := range m.said[at:] {
			m.mustReread = m.mustReread || other.attempt > attempt
		}
		if since > span.first {
			at++
		}
		m.said = m.said[:at]
		return
	}
}
