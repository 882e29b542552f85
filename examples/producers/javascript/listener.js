// One listener to one run: live events, and replay wherever they leave a hole.

import { createInbox } from "@nats-io/transport-node";
import { Merger } from "./merger.js";

const TERMINAL = new Set(["run_completed", "run_failed", "run_cancelled", "run_suspended"]);
const GAP_PATIENCE = 200; // milliseconds
const SILENCE_PATIENCE = [1000, 2000, 5000, 10000];
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

export class Listener {
  #live = [];
  #readUntil = 0;
  #merger = new Merger();
  #wake = () => {};

  // Listening begins here: construct it before the turn is published. `behind`: read what was said before.
  constructor(connection, namespace, subject, inboxPrefix, { behind }) {
    this.connection = connection;
    this.subject = subject;
    this.stream = `${namespace}-EVENTS`;
    this.inboxPrefix = inboxPrefix;
    this.behind = behind;
    this.subscription = connection.subscribe(subject, {
      callback: (error, message) => {
        if (!error) this.#live.push(parsed(message));
        this.#wake();
      },
    });
  }

  // The connection was away: something may have been missed.
  catchUp() {
    this.behind = true;
    this.#wake();
  }

  async *events() {
    let gapSince = null;
    let silences = 0;
    for (;;) {
      if (this.#merger.mustReread) {
        this.#merger.mustReread = false;
        this.behind = true;
        this.#readUntil = 0;
      }
      const replayed = this.behind ? await this.#replay() : [];
      if (this.#live.length) silences = 0;
      for (const batch of [...replayed, ...this.#live.splice(0)]) {
        if (batch === null) continue;
        if ((batch.v ?? 2) !== 2) throw new Error(`event batch of version ${batch.v}: upgrade this client`);
        for (const event of this.#merger.add(batch)) {
          yield event;
          if (TERMINAL.has(event.type)) return;
        }
      }
      gapSince = this.#merger.hasGap ? (gapSince ?? Date.now()) : null;
      if (gapSince && Date.now() - gapSince > GAP_LIMIT) {
        throw new Error("events are missing from the stream: they have expired");
      }
      if (this.#live.length || this.behind || this.#merger.mustReread) continue;
      const patience = gapSince ? GAP_PATIENCE : SILENCE_PATIENCE[Math.min(silences, 3)];
      if (!(await this.#woken(patience))) {
        silences += 1;
        this.behind = true;
      }
    }
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
      const request = { seq: this.#readUntil + 1, batch: 1000, next_by_subj: this.subject };
      more = await this.#directGet(request, (message) => {
        this.#readUntil = Number(message.headers.get("Nats-Sequence"));
        batches.push(parsed(message));
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
          const status = message?.headers?.code ?? 0;
          if (error || (status !== 0 && status !== 204)) return done(false); // 404: nothing; 503: nobody
          if (status === 204) return done(Number(message.headers.get("Nats-Num-Pending")) > 0);
          onMessage(message);
        },
      });
      this.connection.publish(`$JS.API.DIRECT.GET.${this.stream}`, JSON.stringify(request), { reply: inbox });
    });
  }
}
