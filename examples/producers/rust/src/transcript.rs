//! The text that stands of a run, as its merged events come. The rules: docs/protocol.md, "The text that stands".

use std::collections::HashSet;

use serde_json::Value;

use crate::merger::Event;

enum Kind {
    Delta(String),
    Whole(String),
    Speaks,
}

struct Said {
    seq: u64,
    path: String,
    step: u64,
    kind: Kind,
}

/// `add` each event, in the order in which it is handed out.
#[derive(Default)]
pub struct Transcript {
    said: Vec<Said>,
}

impl Transcript {
    pub fn add(&mut self, event: &Event) {
        // A number that comes again voids what was said from it on.
        self.said.retain(|said| said.seq < event.seq);
        let json = &event.json;
        let path = json["path"].as_str().unwrap_or_default().to_owned();
        let step = json["step"].as_u64().unwrap_or(0);
        let kind = match event.kind() {
            "text_delta" => Kind::Delta(json["text"].as_str().unwrap_or_default().to_owned()),
            "model_completed" => Kind::Whole(text_of(&json["message"])),
            "agent_started" if json["speaks"] == true => Kind::Speaks,
            "step_restarted" => return self.said.retain(|said| !said.is_voided(&path, step)),
            _ => return,
        };
        self.said.push(Said { seq: event.seq, path, step, kind });
    }

    pub fn text(&self) -> String {
        let mut speaking = HashSet::from([""]);
        let mut whole = HashSet::new();
        for said in &self.said {
            match said.kind {
                Kind::Speaks => drop(speaking.insert(&said.path)),
                Kind::Whole(_) => drop(whole.insert((&said.path, said.step))),
                Kind::Delta(_) => {}
            }
        }
        let shown = self.said.iter().filter(|said| speaking.contains(said.path.as_str()));
        let texts = shown.filter_map(|said| match &said.kind {
            Kind::Whole(text) => Some(text.as_str()),
            Kind::Delta(text) if !whole.contains(&(&said.path, said.step)) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

impl Said {
    fn is_voided(&self, restarted: &str, step: u64) -> bool {
        if self.path == restarted {
            return !matches!(self.kind, Kind::Speaks) && self.step >= step;
        }
        let below = match restarted {
            "" => Some(self.path.as_str()),
            _ => self.path.strip_prefix(restarted).and_then(|rest| rest.strip_prefix('/')),
        };
        let asked = below.and_then(|below| below.split_once(':')).and_then(|(asked, _)| asked.parse::<u64>().ok());
        asked.is_some_and(|asked| asked >= step)
    }
}

fn text_of(message: &Value) -> String {
    let parts = message["content"].as_array().into_iter().flatten();
    parts.filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str()).collect()
}
