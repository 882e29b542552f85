// One listener to one run: live events, and replay wherever they leave a hole.

import { createInbox } from "@nats-io/transport-node";
import { Merger } from "./merger.js";

export const VERSION = 2;
export const START = { attempt: 0, seq: 0 };

const TERMINAL = new Set(["run_completed", "run_failed", "run_cancelled", "run_suspended", "run_absorbed"]);
const GAP_PATIENCE = 200; // milliseconds
const SILENCE_PATIENCE = [1000, 2000, 5000, 10000];
const GAP_DOUBT = 1000;
const GAP_EXPIRED = 10000;
const GAP_LIMIT = 30000;

// Null for what is no event batch at all.
function parsed(message) {
  try {
    const batch = message.json();
    return Array.isArray(batch?.events) ? batch : null;
  } catch {
    return null;
  }
}

// A position as text, such as "1-17"; none is the start.
export function parsedPosition(text) {
  if (text === undefined) return START;
  const match = /^([0-9]{1,16})-([0-9]{1,16})$/.exec(text);
  if (!match) throw new Error(`${text} is not a position`);
  return { attempt: Number(match[1]), seq: Number(match[2]) };
}

export class Listener {
  terminal = null; // the run's last event, once it is due

  #live = [];
  #readUntil = 0; // in the stream
  #read = new Set(); // the attempts that were read from the stream
  #isEnded = false; // whether a terminal event was: all that was before it is stored
  #merger = new Merger();
  #doubted = null; // the merger before it began anew, until something differs
  #known;
  #last = 0;
  #wake = () => {};

  // Listening begins here: construct it before the turn is published. `behind`: read what was said before.
  // `after`: a position; what a listener that came this far knows is left out.
  constructor(connection, namespace, subject, inboxPrefix, { behind, after = START }) {
    this.connection = connection;
    this.subject = subject;
    this.stream = `${namespace}-EVENTS`;
    this.inboxPrefix = inboxPrefix;
    this.behind = behind;
    this.#known = after;
    this.subscription = connection.subscribe(subject, {
      callback: (error, message) => {
        if (!error) this.#live.push(parsed(message));
        this.#wake();
      },
    });
  }

  // Where the last event that was handed out is.
  get position() {
    if (!this.#last) return `${this.#known.attempt}-${this.#known.seq}`;
    return `${this.#merger.attemptOf(this.#last)}-${this.#last}`;
  }

  // The connection was away: something may have been missed.
  catchUp() {
    this.behind = true;
    this.#wake();
  }

  async *events() {
    let gapSince = null;
    let doubted = false;
    let silences = 0;
    for (;;) {
      if (this.#merger.mustReread) {
        this.#merger.mustReread = false;
        this.#readAll();
      }
      const isRead = this.behind;
      const replayed = isRead ? await this.#replay() : [];
      if (this.#live.length) silences = 0;
      const isSettled = isRead && (this.#isEnded || (gapSince !== null && Date.now() - gapSince > GAP_EXPIRED));
      for (const due of this.#merged(replayed, isSettled, this.#live.splice(0))) {
        for (const event of this.#news(due)) {
          this.#last = event.seq;
          yield event;
        }
        if (TERMINAL.has(due.at(-1)?.type)) {
          this.terminal = due.at(-1);
          return;
        }
      }
      if (isRead && silences > 0 && this.#merger.attempts.some((attempt) => !this.#read.has(attempt))) {
        this.#beginAnew();
      }
      gapSince = this.#merger.hasGap ? (gapSince ?? Date.now()) : null;
      doubted &&= gapSince !== null;
      if (gapSince && Date.now() - gapSince > GAP_LIMIT) {
        throw new Error("events are missing from the stream: they have expired");
      }
      if (gapSince && Date.now() - gapSince > GAP_DOUBT && !doubted) {
        doubted = true;
        this.#beginAnew();
      }
      if (this.#live.length || this.behind || this.#merger.mustReread) continue;
      const patience = gapSince ? GAP_PATIENCE : SILENCE_PATIENCE[Math.min(silences, 3)];
      if (!(await this.#woken(patience))) {
        silences += 1;
        this.behind = true;
      }
    }
  }

  // What each batch makes due.
  *#merged(replayed, isSettled, live) {
    for (const batch of replayed) yield this.#add(batch);
    if (isSettled) yield this.#merger.skip();
    for (const batch of live) yield this.#add(batch);
  }

  #add(batch) {
    if (batch === null) return [];
    if ((batch.v ?? VERSION) !== VERSION) throw new Error(`event batch of version ${batch.v}: upgrade this client`);
    return this.#merger.add(batch);
  }

  // Leaves out what is known: up to a position, or from before the listener began anew.
  #news(due) {
    if (this.#doubted) {
      const isKnown = ({ seq }) => this.#doubted.attemptOf(seq) === this.#merger.attemptOf(seq);
      const at = due.findIndex((event) => !isKnown(event));
      if (at < 0) return [];
      this.#doubted = null;
      due = due.slice(at);
    }
    if (this.#known !== START) {
      const { attempt, seq } = this.#known;
      const at = due.findIndex((event) => event.seq > seq || this.#merger.attemptOf(event.seq) > attempt);
      if (at < 0) return [];
      this.#known = START;
      due = due.slice(at);
    }
    return due;
  }

  // By what is stored alone: what is heard and never stored may have made void what stands.
  #beginAnew() {
    this.#doubted ??= this.#merger;
    this.#merger = new Merger();
    this.#readAll();
  }

  #readAll() {
    this.behind = true;
    this.#readUntil = 0;
  }

  #woken(patience) {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), patience);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  }

  // What the stream has beyond what was read of it before.
  async #replay() {
    this.behind = false;
    const batches = [];
    for (let more = true; more; ) {
      const request = { seq: this.#readUntil + 1, batch: 1000, max_bytes: 4 << 20, next_by_subj: this.subject };
      more = await this.#directGet(request, (message) => {
        this.#readUntil = Number(message.headers.get("Nats-Sequence"));
        const batch = parsed(message);
        if (!batch?.events.length) return;
        const { attempt = 1, events } = batch;
        this.#read.add(attempt);
        this.#isEnded ||= TERMINAL.has(events.at(-1).type);
        batches.push(batch);
      });
    }
    return batches;
  }

  // Resolves to whether there is more. A broker that does not answer is asked again after the next silence.
  #directGet(request, onMessage) {
    return new Promise((resolve) => {
      const inbox = createInbox(this.inboxPrefix);
      const done = (more) => {
        clearTimeout(timer);
        replies.unsubscribe();
        resolve(more);
      };
      const timer = setTimeout(() => done(false), 5000);
      const replies = this.connection.subscribe(inbox, {
        callback: (error, message) => {
          if (!error && message.headers?.has("Nats-Sequence")) return onMessage(message);
          const status = message?.headers?.code ?? 0;
          done(!error && status === 204 && Number(message.headers.get("Nats-Num-Pending")) > 0);
        },
      });
      this.connection.publish(`$JS.API.DIRECT.GET.${this.stream}`, JSON.stringify(request), { reply: inbox });
    });
  }
}
