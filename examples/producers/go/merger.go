package main

import "encoding/json"

// Event is an event as it came, and what the merger and the listener need to know of it.
type Event struct {
	Seq  int
	Type string
	JSON json.RawMessage
}

func (event *Event) UnmarshalJSON(data []byte) error {
	var head struct {
		Seq  int    `json:"seq"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	event.Seq, event.Type, event.JSON = head.Seq, head.Type, append(json.RawMessage(nil), data...)
	return nil
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
