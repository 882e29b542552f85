// The text that stands of a run, as its merged events come. The rules: docs/protocol.md, "The text that stands".

export class Transcript {
  #pieces = []; // { seq, path, step, text, whole }, by number
  #speaking = []; // children that speak: { seq, path }

  add({ type, seq, path = "", step, text, message, speaks }) {
    const stands = (said) => said.seq < seq; // a number that comes again voids what was said from it on
    this.#keep(stands);
    if (type === "text_delta") this.#pieces.push({ seq, path, step, text, whole: false });
    if (type === "model_completed") this.#pieces.push({ seq, path, step, text: textOf(message), whole: true });
    if (type === "agent_started" && speaks) this.#speaking.push({ seq, path });
    if (type === "step_restarted") this.#keep((said) => !isVoided(said, path, step));
  }

  get text() {
    const speaks = new Set(["", ...this.#speaking.map(({ path }) => path)]);
    const whole = new Set(this.#pieces.filter((piece) => piece.whole).map(call));
    return this.#pieces
      .filter((piece) => speaks.has(piece.path) && (piece.whole || !whole.has(call(piece))))
      .map((piece) => piece.text)
      .join("");
  }

  #keep(stands) {
    this.#pieces = this.#pieces.filter(stands);
    this.#speaking = this.#speaking.filter(stands);
  }
}

// Names the model call that a piece is of.
function call({ path, step }) {
  return `${path} ${step}`;
}

function textOf(message) {
  return message.content.map((part) => (part.type === "text" ? part.text : "")).join("");
}

// Whether the restart of `step` on `restarted` voids what was said: that step's and later ones', and that of the
// children that their tool calls asked.
function isVoided(said, restarted, step) {
  if (said.path === restarted) return said.step >= step;
  const prefix = restarted && `${restarted}/`;
  if (!said.path.startsWith(prefix)) return false;
  const asked = /^([0-9]+):/.exec(said.path.slice(prefix.length));
  return asked !== null && Number(asked[1]) >= step;
}
