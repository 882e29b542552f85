//! One run's event batches, in whatever order and however often they come, as the one sequence they are. The rules:
//! docs/protocol.md, "Merging".

use std::collections::BTreeMap;

use serde_json::Value;

/// The version of the schema that this client reads.
pub const VERSION: u64 = 2;

const TERMINAL: [&str; 5] = ["run_completed", "run_failed", "run_cancelled", "run_suspended", "run_absorbed"];

/// An event as it came, and what the merger needs to know of it.
#[derive(Clone)]
pub struct Event {
    pub seq: u64,
    pub json: Value,
}

impl Event {
    pub fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap_or_default()
    }

    pub fn is_terminal(&self) -> bool {
        TERMINAL.contains(&self.kind())
    }

    /// Whether it is a record that says that only deltas are missing from `next` on.
    fn covers(&self, next: u64) -> bool {
        let is_delta = matches!(self.kind(), "text_delta" | "reasoning_delta");
        !is_delta && self.json["first"].as_u64().unwrap_or(self.seq) <= next
    }
}

/// One message on an event subject.
pub struct Batch {
    pub attempt: u64,
    since: u64,
    pub events: Vec<Event>,
}

impl Batch {
    /// None for what is no event batch at all; an error for one of another version.
    pub fn parse(data: &[u8]) -> Result<Option<Batch>, String> {
        let Ok(mut json) = serde_json::from_slice::<Value>(data) else { return Ok(None) };
        let Some(events) = json.get_mut("events").and_then(Value::as_array_mut).map(std::mem::take) else {
            return Ok(None);
        };
        let number = |field: &str, otherwise| json[field].as_u64().unwrap_or(otherwise);
        let version = number("v", VERSION);
        if version != VERSION {
            return Err(format!("event batch of version {version}: upgrade this client"));
        }
        let event = |json: Value| json["seq"].as_u64().map(|seq| Event { seq, json });
        let events = events.into_iter().filter_map(event).collect();
        Ok(Some(Batch { attempt: number("attempt", 1), since: number("since", 1), events }))
    }
}

struct Span {
    first: u64,
    attempt: u64,
}

/// Hands out the events of one run in the order of their numbers.
pub struct Merger {
    next: u64,
    since: BTreeMap<u64, u64>,
    early: BTreeMap<u64, (u64, Event)>,
    said: Vec<Span>,
    /// Set when all of the run's batches have to be added once more.
    pub must_reread: bool,
}

impl Default for Merger {
    fn default() -> Self {
        Merger { next: 1, since: BTreeMap::new(), early: BTreeMap::new(), said: Vec::new(), must_reread: false }
    }
}

impl Merger {
    /// Whether an event is missing although a later one is here.
    pub fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// The attempts that were heard of.
    pub fn attempts(&self) -> impl Iterator<Item = &u64> {
        self.since.keys()
    }

    /// The attempt whose event was handed out under this number; 0 if there was none.
    pub fn attempt_of(&self, seq: u64) -> u64 {
        let span = self.said.iter().rev().find(|span| span.first <= seq && seq < self.next);
        span.map_or(0, |span| span.attempt)
    }

    /// The events that the batch makes due.
    pub fn add(&mut self, batch: Batch) -> Vec<Event> {
        let attempt = batch.attempt;
        if !self.since.contains_key(&attempt) {
            self.hear_of(attempt, batch.since);
        }
        let limit = self.since.range(attempt + 1..).map(|(_, since)| *since).min().unwrap_or(u64::MAX);
        for event in batch.events {
            let is_held = self.early.get(&event.seq).is_some_and(|(holder, _)| *holder >= attempt);
            if self.next <= event.seq && event.seq < limit && !is_held {
                self.early.insert(event.seq, (attempt, event));
            }
        }
        self.hand_out()
    }

    /// What is missing will not come any more: the events that are due once missing deltas are passed over.
    pub fn skip(&mut self) -> Vec<Event> {
        let mut due = Vec::new();
        while self.early.values().any(|(_, event)| event.covers(self.next)) {
            self.next = *self.early.keys().next().expect("one covers");
            due.append(&mut self.hand_out());
        }
        due
    }

    fn hand_out(&mut self) -> Vec<Event> {
        let mut due = Vec::new();
        while let Some((attempt, event)) = self.early.remove(&self.next) {
            if self.said.last().is_none_or(|span| span.attempt != attempt) {
                self.said.push(Span { first: self.next, attempt });
            }
            self.next += 1;
            due.push(event);
        }
        due
    }

    /// A new attempt: what older ones said from `since` on is void, be it waiting or handed out.
    fn hear_of(&mut self, attempt: u64, since: u64) {
        self.since.insert(attempt, since);
        self.early.retain(|seq, (holder, _)| *holder >= attempt || *seq < since);
        let end = |at: usize| self.said.get(at + 1).map_or(self.next, |span| span.first);
        let is_void = |at: &usize| self.said[*at].attempt < attempt && since < end(*at);
        let Some(at) = (0..self.said.len()).find(is_void) else { return };
        self.must_reread |= self.said[at..].iter().any(|span| span.attempt > attempt);
        self.next = since.max(self.said[at].first);
        self.said.retain(|span| span.first < self.next);
    }
}
