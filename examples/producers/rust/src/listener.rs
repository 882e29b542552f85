//! One listener to one run: live events, and replay wherever they leave a hole. docs/protocol.md, "Listening".

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Failure;
use crate::merger::{Batch, Event, Merger};

const GAP_PATIENCE: Duration = Duration::from_millis(200);
const GAP_DOUBT: Duration = Duration::from_secs(1);
const GAP_EXPIRED: Duration = Duration::from_secs(10);
const GAP_LIMIT: Duration = Duration::from_secs(30);
const SILENCE_PATIENCE: [u64; 4] = [1, 2, 5, 10]; // seconds
const REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// How far a listener came: after the event `seq` of `attempt`.
#[derive(Clone, Copy, Default)]
pub struct Position {
    pub attempt: u64,
    pub seq: u64,
}

impl Position {
    /// Of text such as "1-17".
    pub fn parse(text: &str) -> Result<Position, String> {
        let number = |digits: &str| {
            let is_number = digits.len() <= 16 && digits.bytes().all(|digit| digit.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        let parts = text.split_once('-').and_then(|(attempt, seq)| Some((number(attempt)?, number(seq)?)));
        let (attempt, seq) = parts.ok_or_else(|| format!("{text} is not a position"))?;
        Ok(Position { attempt, seq })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.attempt, self.seq)
    }
}

pub struct Listener {
    client: Client,
    stream: String,
    subject: String,
    live: Subscriber,
    reconnected: Arc<Notify>,
    behind: bool,
    read_until: u64,          // in the stream
    read: HashSet<u64>,       // the attempts that were read from the stream
    is_ended: bool,           // whether a terminal event was: all that was before it is stored
    merger: Merger,
    doubted: Option<Merger>,  // the merger before it began anew, until something differs
    known: Option<Position>,  // what a listener that came this far knows is left out
    /// Where the last event that was handed out is.
    pub position: Position,
    gap_since: Option<Instant>,
    is_doubtful: bool,
    silences: usize,
}

impl Listener {
    /// Listening begins here: before the turn is published. `behind`: read what was said before.
    pub async fn open(
        client: &Client,
        reconnected: Arc<Notify>,
        namespace: &str,
        subject: String,
        behind: bool,
        after: Option<Position>,
    ) -> Result<Listener, Failure> {
        let live = client.subscribe(subject.clone()).await?;
        Ok(Listener {
            client: client.clone(),
            stream: format!("{namespace}-EVENTS"),
            subject,
            live,
            reconnected,
            behind,
            read_until: 0,
            read: HashSet::new(),
            is_ended: false,
            merger: Merger::default(),
            doubted: None,
            known: after,
            position: after.unwrap_or_default(),
            gap_since: None,
            is_doubtful: false,
            silences: 0,
        })
    }

    /// Tells `hear` the run's events in order, up to the terminal one, which it returns.
    pub async fn events(&mut self, mut hear: impl FnMut(&Event)) -> Result<Event, Failure> {
        loop {
            if std::mem::take(&mut self.merger.must_reread) {
                self.read_all();
            }
            if std::mem::take(&mut self.behind) {
                if let Some(terminal) = self.replay(&mut hear).await? {
                    return Ok(terminal);
                }
                if self.behind || self.merger.must_reread {
                    continue;
                }
            }
            let patience = self.patience()?;
            if self.behind {
                continue;
            }
            let message = tokio::select! {
                message = timeout(patience, self.live.next()) => message,
                () = self.reconnected.notified() => {
                    self.behind = true;
                    continue;
                }
            };
            match message {
                Ok(Some(message)) => {
                    self.silences = 0;
                    if let Some(batch) = Batch::parse(&message.payload)? {
                        let due = self.merger.add(batch);
                        if let Some(terminal) = self.hand_out(due, &mut hear) {
                            return Ok(terminal);
                        }
                    }
                }
                Ok(None) => return Err("the connection was closed".into()),
                Err(_) => {
                    self.silences += 1;
                    self.behind = true;
                }
            }
        }
    }

    /// How long to wait for something to be heard.
    fn patience(&mut self) -> Result<Duration, Failure> {
        if !self.merger.has_gap() {
            self.gap_since = None;
            self.is_doubtful = false;
            let at = self.silences.min(SILENCE_PATIENCE.len() - 1);
            return Ok(Duration::from_secs(SILENCE_PATIENCE[at]));
        }
        let lasted = self.gap_since.get_or_insert_with(Instant::now).elapsed();
        if lasted > GAP_LIMIT {
            return Err("events are missing from the stream: they have expired".into());
        }
        if lasted > GAP_DOUBT && !self.is_doubtful {
            self.is_doubtful = true;
            self.begin_anew();
        }
        Ok(GAP_PATIENCE)
    }

    /// What the stream has beyond what was read of it before.
    async fn replay(&mut self, hear: &mut impl FnMut(&Event)) -> Result<Option<Event>, Failure> {
        let mut has_more = true;
        while has_more {
            let (batches, more) = self.page().await?;
            has_more = more;
            for batch in batches {
                let due = self.merger.add(batch);
                if let Some(terminal) = self.hand_out(due, hear) {
                    return Ok(Some(terminal));
                }
            }
        }
        let is_old = self.gap_since.is_some_and(|since| since.elapsed() > GAP_EXPIRED);
        if self.is_ended || is_old {
            let due = self.merger.skip();
            if let Some(terminal) = self.hand_out(due, hear) {
                return Ok(Some(terminal));
            }
        }
        if self.silences > 0 && self.merger.attempts().any(|attempt| !self.read.contains(attempt)) {
            self.begin_anew();
        }
        Ok(None)
    }

    /// One direct get: batches, and whether there are more.
    async fn page(&mut self) -> Result<(Vec<Batch>, bool), Failure> {
        let request = json!({
            "seq": self.read_until + 1, "batch": 1000, "max_bytes": 4 << 20, "next_by_subj": self.subject,
        });
        let inbox = self.client.new_inbox();
        let mut replies = self.client.subscribe(inbox.clone()).await?;
        let api = format!("$JS.API.DIRECT.GET.{}", self.stream);
        self.client.publish_with_reply(api, inbox, request.to_string().into()).await?;
        let mut batches = Vec::new();
        // Without an answer, it is asked again when a timer rings.
        while let Ok(Some(message)) = timeout(REPLY_PATIENCE, replies.next()).await {
            let header = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
            let Some(sequence) = header("Nats-Sequence") else {
                let is_end = message.status.is_some_and(|status| status.as_u16() == 204);
                return Ok((batches, is_end && header("Nats-Num-Pending").unwrap_or(0) > 0));
            };
            self.read_until = sequence;
            if let Some(batch) = Batch::parse(&message.payload)? {
                if let Some(last) = batch.events.last() {
                    self.read.insert(batch.attempt);
                    self.is_ended |= last.is_terminal();
                    batches.push(batch);
                }
            }
        }
        Ok((batches, false))
    }

    /// Returns the terminal event once it is due.
    fn hand_out(&mut self, due: Vec<Event>, hear: &mut impl FnMut(&Event)) -> Option<Event> {
        for event in &due {
            let attempt = self.merger.attempt_of(event.seq);
            if self.doubted.as_ref().is_some_and(|doubted| doubted.attempt_of(event.seq) == attempt) {
                continue;
            }
            self.doubted = None;
            if self.known.is_some_and(|known| event.seq <= known.seq && attempt <= known.attempt) {
                continue;
            }
            self.known = None;
            self.position = Position { attempt, seq: event.seq };
            hear(event);
        }
        due.into_iter().last().filter(Event::is_terminal)
    }

    /// By what is stored alone: what is heard and never stored may have made void what stands.
    fn begin_anew(&mut self) {
        let doubted = std::mem::take(&mut self.merger);
        self.doubted.get_or_insert(doubted);
        self.read_all();
    }

    fn read_all(&mut self) {
        self.behind = true;
        self.read_until = 0;
    }
}
