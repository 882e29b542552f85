// A producer without a line of Python: it speaks docs/protocol.md. How it is used: ../README.md.

import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { connect, headers } from "@nats-io/transport-node";
import { Listener, parsedPosition, VERSION } from "./listener.js";
import { Merger } from "./merger.js";
import { Transcript } from "./transcript.js";

const NAMESPACE = process.env.ATTO_NAMESPACE ?? "atto";
const INBOX = process.env.ATTO_INBOX_PREFIX ?? "_INBOX";
const EXIT = { run_completed: 0, run_failed: 1, run_cancelled: 3, run_suspended: 4, run_absorbed: 5 };
const BACKLOG_FULL = 75;
const PATIENCE = 15000; // milliseconds for which a turn is offered to a broker that does not answer
const ACK_PATIENCE = 2000;
const NOT_NOW = new Set([10008, 10009, 10118, 10119, 10158]); // a cluster without a leader, or about to take it
const USAGE = `usage: producer SESSION TEXT [RUN_ID]
       producer --answer SESSION ROOT WAIT ANSWER [RUN_ID]
       producer --attach SESSION RUN_ID [POSITION]
       producer --cancel SESSION RUN_ID [WHY]
       producer --merge`;

class BacklogFull extends Error {}

// An id as one token of a subject: each byte outside [A-Za-z0-9_-] becomes =XX.
function token(id) {
  const bytes = Buffer.from(id);
  if (bytes.length < 1 || bytes.length > 128) throw new Error("an id has 1 to 128 bytes");
  const escape = (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return Array.from(bytes, (byte) => {
    const character = String.fromCharCode(byte);
    return /[A-Za-z0-9_-]/.test(character) ? character : escape(byte);
  }).join("");
}

// A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits.
function newRunId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// Returns once the broker has stored the message. The same `id` may be published again: it is stored once.
async function publish(connection, subject, body, id) {
  const head = headers();
  if (id) head.set("Nats-Msg-Id", id);
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    try {
      const options = { headers: head, timeout: ACK_PATIENCE };
      const reply = await connection.request(subject, JSON.stringify(body), options);
      const { error } = reply.json();
      if (!error) return;
      if (error.err_code === 10077 && error.description.includes("per subject")) {
        throw new BacklogFull("the session has as many unfinished turns as it may: wait until one has ended");
      }
      throw Object.assign(new Error(error.description), { refused: !NOT_NOW.has(error.err_code) });
    } catch (error) {
      // No answer, or nobody there to give one: whether the turn was taken is unknown, so it is offered again.
      if (error instanceof BacklogFull || error.refused || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

// Publishes a turn or an answer, and prints the events of its run.
async function submit(connection, kind, session, body, runId) {
  const run = runId ?? newRunId();
  console.error(`run ${run}`);
  // Nobody else can know the id, so nobody can take it first; it stays the same however often it is offered.
  const id = `${token(session)}.${token(run)}.${randomBytes(8).toString("hex")}`;
  // Heard from the start; only a run that may have begun before has something to replay.
  const listener = listen(connection, session, run, { behind: runId !== undefined });
  await publish(connection, `${NAMESPACE}.${kind}.${token(session)}`, { v: VERSION, run_id: run, ...body }, id);
  return print(listener);
}

function listen(connection, session, run, options) {
  const subject = `${NAMESPACE}.event.${token(session)}.${token(run)}`;
  const listener = new Listener(connection, NAMESPACE, subject, INBOX, options);
  (async () => {
    for await (const status of connection.status()) if (status.type === "reconnect") listener.catchUp();
  })();
  return listener;
}

async function print(listener) {
  try {
    for await (const event of listener.events()) console.log(JSON.stringify(event));
  } finally {
    console.error(`position ${listener.position}`);
  }
  return EXIT[listener.terminal.type];
}

const ACTIONS = {
  "--run": {
    words: 2,
    act: (connection, [session, text, run]) => submit(connection, "turn", session, { input: text }, run),
  },
  "--answer": {
    words: 4,
    act: (connection, [session, root, wait, answer, run]) => {
      const resume = { run_id: root, answers: { [wait]: JSON.parse(answer) } };
      return submit(connection, "answer", session, { resume }, run);
    },
  },
  "--attach": {
    words: 2,
    act: (connection, [session, run, after]) =>
      print(listen(connection, session, run, { behind: true, after: parsedPosition(after) })),
  },
  "--cancel": {
    words: 2,
    act: async (connection, [session, run, ...reason]) => {
      const subject = `${NAMESPACE}.cancel.${token(session)}.${token(run)}`;
      await publish(connection, subject, { v: VERSION, reason: reason.join(" ") });
      return 0;
    },
  },
};

// For the tests: merges what comes on standard input, and says after each line what is due and which text stands.
async function merge() {
  let merger, transcript;
  for await (const line of createInterface({ input: process.stdin })) {
    const { begin, skip, ...batch } = JSON.parse(line);
    if (begin) [merger, transcript] = [new Merger(), new Transcript()];
    const events = begin ? [] : skip ? merger.skip() : merger.add(batch);
    for (const event of events) transcript.add(event);
    const due = events.map(({ seq }) => `${merger.attemptOf(seq)}-${seq}`);
    const { hasGap: gap, mustReread: reread } = merger;
    merger.mustReread = false;
    console.log(JSON.stringify({ due, gap, reread, text: transcript.text }));
  }
  return 0;
}

async function main(words) {
  const flag = words[0]?.startsWith("--") ? words.shift() : "--run";
  if (flag === "--merge") return merge();
  const action = ACTIONS[flag];
  if (!action || words.length < action.words) {
    console.error(USAGE);
    return 2;
  }
  const connection = await connect({
    servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222",
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
    inboxPrefix: INBOX,
    name: "atto-producer-js",
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
  });
  try {
    return await action.act(connection, words);
  } finally {
    await connection.close();
  }
}

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error) => {
    console.error(error instanceof BacklogFull ? `backlog full: ${error.message}` : `error: ${error.message}`);
    process.exitCode = error instanceof BacklogFull ? BACKLOG_FULL : 2;
  },
);
