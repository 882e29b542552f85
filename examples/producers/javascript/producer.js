// A producer without a line of Python: it speaks docs/protocol.md.
//
//   node producer.js SESSION TEXT [RUN_ID]          submits a turn and prints its events, one JSON line each
//   node producer.js --attach SESSION RUN_ID        prints a run's events, from the first one on
//   node producer.js --cancel SESSION RUN_ID [WHY]  ends a run
//
// The environment: NATS_URL, NATS_USER, NATS_PASSWORD, ATTO_NAMESPACE, ATTO_INBOX_PREFIX.
// Exit codes: 0 completed, 1 failed, 2 wrong use or no broker, 3 cancelled, 75 the session's backlog is full.

import { randomBytes } from "node:crypto";
import { connect, headers } from "@nats-io/transport-node";
import { Listener } from "./listener.js";

const NAMESPACE = process.env.ATTO_NAMESPACE ?? "atto";
const INBOX = process.env.ATTO_INBOX_PREFIX ?? "_INBOX";
const EXIT = { run_completed: 0, run_failed: 1, run_suspended: 1, run_cancelled: 3 };
const BACKLOG_FULL = 75;
const PATIENCE = 15000; // milliseconds for which a turn is offered to a broker that does not answer

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
      const reply = await connection.request(subject, JSON.stringify(body), { headers: head, timeout: 5000 });
      const { error } = reply.json();
      if (!error) return;
      if (error.err_code === 10077 && error.description.includes("per subject")) {
        throw new BacklogFull("the session has as many unfinished turns as it may: wait until one has ended");
      }
      throw Object.assign(new Error(error.description), { refused: true });
    } catch (error) {
      // No answer, or nobody there to give one: whether the turn was taken is unknown, so it is offered again.
      if (error instanceof BacklogFull || error.refused || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function run(connection, [session, text, runId]) {
  const run = runId ?? newRunId();
  console.error(`run ${run}`);
  const id = `${token(session)}.${token(run)}`;
  // Heard from the start; only a run that may have begun before has something to replay.
  const listener = listen(connection, session, run, { behind: runId !== undefined });
  await publish(connection, `${NAMESPACE}.turn.${token(session)}`, { input: text, run_id: run }, id);
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
  let last;
  for await (last of listener.events()) console.log(JSON.stringify(last));
  return EXIT[last.type];
}

async function cancel(connection, [session, run, reason = ""]) {
  await publish(connection, `${NAMESPACE}.cancel.${token(session)}.${token(run)}`, { reason });
  return 0;
}

async function main(words) {
  const flag = words[0]?.startsWith("--") ? words.shift() : "--run";
  if (words.length < 2 || !["--run", "--attach", "--cancel"].includes(flag)) {
    console.error("usage: producer [--attach | --cancel] SESSION TEXT | RUN_ID");
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
    if (flag === "--cancel") return await cancel(connection, words);
    if (flag === "--run") return await run(connection, words);
    return await print(listen(connection, words[0], words[1], { behind: true }));
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
