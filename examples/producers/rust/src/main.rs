//! A producer without a line of Python: it speaks docs/protocol.md. How it is used: ../../README.md.

mod listener;
mod merger;
mod transcript;

use std::env;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, ConnectOptions, HeaderMap};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::listener::{Listener, Position};
use crate::merger::{Batch, Merger, VERSION};
use crate::transcript::Transcript;

const PATIENCE: Duration = Duration::from_secs(15); // for which a turn is offered to a broker that does not answer
const ACK_PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
const NOT_NOW: [u64; 5] = [10008, 10009, 10118, 10119, 10158]; // no leader, or about to take the same message
const MISUSED: u8 = 2;
const BACKLOG_FULL: u8 = 75;
const USAGE: &str = "usage: producer SESSION TEXT [RUN_ID]
       producer --answer SESSION ROOT WAIT ANSWER [RUN_ID]
       producer --attach SESSION RUN_ID [POSITION]
       producer --cancel SESSION RUN_ID [WHY]
       producer --merge";

/// What went wrong, and the exit code for it.
pub struct Failure(u8, String);

impl<T: ToString> From<T> for Failure {
    fn from(error: T) -> Self {
        Failure(MISUSED, error.to_string())
    }
}

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

/// An id as one token of a subject: each byte outside [A-Za-z0-9_-] becomes =XX.
fn token(id: &str) -> Result<String, Failure> {
    if id.is_empty() || id.len() > 128 {
        return Err("an id has 1 to 128 bytes".into());
    }
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        _ => format!("={byte:02X}"),
    };
    Ok(id.bytes().map(escape).collect())
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits.
fn new_run_id() -> Result<String, Failure> {
    let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() & ((1 << 48) - 1);
    let low = u128::from_be_bytes(random()?) & ((1 << 80) - 1);
    let id = milliseconds << 80 | low & !(0xf << 76) & !(0b11 << 62) | 0x7 << 76 | 0b10 << 62;
    let digits = format!("{id:032x}");
    let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

struct Producer {
    client: Client,
    namespace: String,
    reconnected: Arc<Notify>,
}

impl Producer {
    async fn connect() -> Result<Producer, Failure> {
        let reconnected = Arc::new(Notify::new());
        let notify = reconnected.clone();
        let mut options = ConnectOptions::new()
            .name("atto-producer-rust")
            .custom_inbox_prefix(setting("ATTO_INBOX_PREFIX", "_INBOX"))
            .max_reconnects(None)
            .reconnect_delay_callback(|_| Duration::from_millis(250))
            .event_callback(move |event| {
                if matches!(event, async_nats::Event::Connected) {
                    notify.notify_one();
                }
                async {}
            });
        if let Ok(user) = env::var("NATS_USER") {
            options = options.user_and_password(user, setting("NATS_PASSWORD", ""));
        }
        let client = options.connect(setting("NATS_URL", "nats://127.0.0.1:4222")).await?;
        Ok(Producer { client, namespace: setting("ATTO_NAMESPACE", "atto"), reconnected })
    }

    /// Returns once the broker has stored the message. The same `id` may be published again: it is stored once.
    async fn publish(&self, subject: &str, body: &Value, id: Option<&str>) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id);
        }
        let body = body.to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.client.request_with_headers(subject.to_owned(), headers.clone(), body.clone().into());
            // No answer, or nobody there to give one: whether the turn was taken is unknown; it is offered again.
            let problem = match timeout(ACK_PATIENCE, request).await {
                Ok(Ok(reply)) => match refusal(&reply.payload)? {
                    None => return Ok(()),
                    Some(problem) => problem,
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the broker did not say whether it took the turn".to_owned(),
            };
            if Instant::now() > deadline {
                return Err(problem.into());
            }
            sleep(PAUSE).await;
        }
    }

    async fn listen(
        &self,
        session: &str,
        run: &str,
        behind: bool,
        after: Option<Position>,
    ) -> Result<Listener, Failure> {
        let subject = format!("{}.event.{}.{}", self.namespace, token(session)?, token(run)?);
        Listener::open(&self.client, self.reconnected.clone(), &self.namespace, subject, behind, after).await
    }

    /// Publishes a turn or an answer, and prints the events of its run.
    async fn submit(&self, kind: &str, session: &str, mut body: Value, run: Option<&String>) -> Result<u8, Failure> {
        let id = run.map_or_else(new_run_id, |run| Ok(run.clone()))?;
        eprintln!("run {id}");
        // Heard from the start; only a run that may have begun before has something to replay.
        let listener = self.listen(session, &id, run.is_some(), None).await?;
        // Nobody else can know the id, so nobody can take it first; it stays the same however often it is offered.
        let salt = u64::from_be_bytes(random()?);
        let message_id = format!("{}.{}.{salt:016x}", token(session)?, token(&id)?);
        body["v"] = VERSION.into();
        body["run_id"] = id.into();
        let subject = format!("{}.{kind}.{}", self.namespace, token(session)?);
        self.publish(&subject, &body, Some(&message_id)).await?;
        print(listener).await
    }

    async fn cancel(&self, session: &str, run: &str, reason: &str) -> Result<u8, Failure> {
        let subject = format!("{}.cancel.{}.{}", self.namespace, token(session)?, token(run)?);
        self.publish(&subject, &json!({"v": VERSION, "reason": reason}), None).await?;
        Ok(0)
    }
}

/// Why the broker cannot take the message now, if it said so; an error if it never will.
fn refusal(reply: &[u8]) -> Result<Option<String>, Failure> {
    let reply: Value = serde_json::from_slice(reply)?;
    let Some(error) = reply.get("error") else { return Ok(None) };
    let code = error["err_code"].as_u64().unwrap_or(0);
    let description = error["description"].as_str().unwrap_or_default().to_owned();
    if code == 10077 && description.contains("per subject") {
        let advice = "the session has as many unfinished turns as it may: wait until one has ended";
        return Err(Failure(BACKLOG_FULL, format!("backlog full: {advice}")));
    }
    if NOT_NOW.contains(&code) { Ok(Some(description)) } else { Err(description.into()) }
}

async fn print(mut listener: Listener) -> Result<u8, Failure> {
    let last = listener.events(|event| println!("{}", event.json)).await;
    eprintln!("position {}", listener.position);
    Ok(match last?.kind() {
        "run_completed" => 0,
        "run_cancelled" => 3,
        "run_suspended" => 4,
        "run_absorbed" => 5,
        _ => 1,
    })
}

/// For the tests: merges what comes on standard input, and says after each line what is due and which text stands.
fn merge() -> Result<u8, Failure> {
    let mut merger = Merger::default();
    let mut transcript = Transcript::default();
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let happens: Value = serde_json::from_str(&line)?;
        let events = if happens["begin"] == true {
            (merger, transcript) = Default::default();
            Vec::new()
        } else if happens["skip"] == true {
            merger.skip()
        } else {
            Batch::parse(line.as_bytes())?.map(|batch| merger.add(batch)).unwrap_or_default()
        };
        events.iter().for_each(|event| transcript.add(event));
        let position = |seq| Position { attempt: merger.attempt_of(seq), seq }.to_string();
        let due: Vec<String> = events.iter().map(|event| position(event.seq)).collect();
        let (gap, reread) = (merger.has_gap(), std::mem::take(&mut merger.must_reread));
        writeln!(out, "{}", json!({"due": due, "gap": gap, "reread": reread, "text": transcript.text()}))?;
    }
    Ok(0)
}

async fn produce(mut words: Vec<String>) -> Result<u8, Failure> {
    let is_flag = words.first().is_some_and(|word| word.starts_with("--"));
    let flag = if is_flag { words.remove(0) } else { "--run".to_owned() };
    if flag == "--merge" {
        return merge();
    }
    let needed = match flag.as_str() {
        "--run" | "--attach" | "--cancel" => 2,
        "--answer" => 4,
        _ => return Err(USAGE.into()),
    };
    if words.len() < needed {
        return Err(USAGE.into());
    }
    let rest = words.split_off(needed);
    let after = if flag == "--attach" { rest.first().map(|text| Position::parse(text)).transpose()? } else { None };
    let producer = Producer::connect().await?;
    let session = &words[0];
    match flag.as_str() {
        "--run" => producer.submit("turn", session, json!({"input": words[1]}), rest.first()).await,
        "--answer" => {
            let answer: Value = serde_json::from_str(&words[3])?;
            let resume = json!({"run_id": words[1], "answers": {&words[2]: answer}});
            producer.submit("answer", session, json!({"resume": resume}), rest.first()).await
        }
        "--attach" => print(producer.listen(session, &words[1], true, after).await?).await,
        _ => producer.cancel(session, &words[1], &rest.join(" ")).await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match produce(env::args().skip(1).collect()).await {
        Ok(code) => code.into(),
        Err(Failure(code, message)) => {
            eprintln!("{message}");
            code.into()
        }
    }
}
