// One run's event batches, in whatever order and however often they come, as the one sequence they are.
// The rules: docs/protocol.md, "Merging".

const DELTAS = new Set(["text_delta", "reasoning_delta"]);

export class Merger {
  next = 1; // the number of the event that is due
  mustReread = false; // set when all of the run's batches have to be added once more
  #since = new Map(); // attempt → the number of its first event
  #early = new Map(); // number → { attempt, event }: not yet due
  #said = []; // which attempt said what was handed out: { first, attempt }, by number

  get hasGap() {
    return this.#early.size > 0;
  }

  // The attempts that were heard of.
  get attempts() {
    return [...this.#since.keys()];
  }

  // The attempt whose event was handed out under this number; 0 if there was none.
  attemptOf(seq) {
    if (seq >= this.next) return 0;
    return this.#said.findLast(({ first }) => first <= seq)?.attempt ?? 0;
  }

  // The events that `batch` makes due.
  add({ attempt = 1, since = 1, events }) {
    if (!this.#since.has(attempt)) this.#hearOf(attempt, since);
    const newer = [...this.#since].filter(([other]) => other > attempt);
    const limit = Math.min(...newer.map(([, from]) => from)); // Infinity if there is none
    for (const event of events) {
      if (event.seq < this.next || event.seq >= limit) continue;
      const held = this.#early.get(event.seq);
      if (!held || held.attempt < attempt) this.#early.set(event.seq, { attempt, event });
    }
    return this.#handOut();
  }

  // What is missing will not come any more: the events that are due once missing deltas are passed over.
  skip() {
    const due = [];
    while ([...this.#early].some(([seq, { event }]) => this.#covers(seq, event))) {
      this.next = Math.min(...this.#early.keys());
      due.push(...this.#handOut());
    }
    return due;
  }

  // Whether the event is a record that says that only deltas are missing.
  #covers(seq, { type, first = seq }) {
    return !DELTAS.has(type) && first <= this.next;
  }

  #handOut() {
    const due = [];
    for (let held; (held = this.#early.get(this.next)); this.next++) {
      this.#early.delete(this.next);
      if (this.#said.at(-1)?.attempt !== held.attempt) {
        this.#said.push({ first: this.next, attempt: held.attempt });
      }
      due.push(held.event);
    }
    return due;
  }

  // A new attempt: what older ones said from `since` on is void, be it waiting or handed out.
  #hearOf(attempt, since) {
    this.#since.set(attempt, since);
    for (const [seq, held] of this.#early) {
      if (held.attempt < attempt && seq >= since) this.#early.delete(seq);
    }
    for (const [at, { first, attempt: speaker }] of this.#said.entries()) {
      const until = this.#said[at + 1]?.first ?? this.next;
      if (speaker >= attempt || since >= until) continue;
      this.next = Math.max(first, since);
      this.mustReread ||= this.#said.slice(at).some((other) => other.attempt > attempt);
      this.#said.length = since > first ? at + 1 : at;
      return;
    }
  }
}
