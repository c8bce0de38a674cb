// The cards of all tasks: which are shown, in which order, and what each says.

import { Card } from "./card.js";
import { arrange, byId, plural, say } from "./dom.js";
import { keep, kept } from "./session.js";

const MANY = 6; // tasks that need no filter
const SPOKEN = 3; // tasks that are read out after a change

export class Answers {
  /** `why(task)` is called by the button of a card. */
  constructor(why) {
    this.why = why;
    this.cards = new Map();
    this.before = null; // answers with patch to the history before
    this.latest = null; // and to this one
    this.pinned = new Set(pins());
    byId("filter").addEventListener("input", () => this.order());
  }

  /** Show answers `{task: answer}` with and without patch; `compare`: with those to the history before. */
  show(patched, plain, compare) {
    this.before = compare ? this.latest : null;
    this.latest = patched;
    for (const task of this.cards.keys()) if (!Object.hasOwn(patched, task)) this.cards.delete(task);
    for (const [task, answer] of Object.entries(patched)) {
      const before = this.before && Object.hasOwn(this.before, task) ? this.before[task] : null;
      this.card(task).show(answer, plain[task], before);
    }
    this.order();
  }

  card(task) {
    if (!this.cards.has(task)) {
      const card = new Card(task, { pin: () => this.pin(card), why: () => this.why(task) });
      card.setPinned(this.pinned.has(task));
      this.cards.set(task, card);
    }
    return this.cards.get(task);
  }

  pin(card) {
    card.setPinned(!card.pinned);
    if (card.pinned) this.pinned.add(card.task);
    else this.pinned.delete(card.task);
    keep("pins", JSON.stringify([...this.pinned]));
    this.order();
    card.node.scrollIntoView({ block: "nearest" });
  }

  /** Pinned tasks come first and are always shown; of the others, those whose names have the text of the filter. */
  order() {
    const text = byId("filter").value.trim().toLowerCase();
    const all = [...this.cards.values()];
    const pinned = all.filter((card) => card.pinned);
    const others = all.filter((card) => !card.pinned && card.task.toLowerCase().includes(text));
    arrange(byId("cards"), [...pinned, ...others].map((card) => card.node));
    byId("filter-label").hidden = all.length <= MANY && !text;
    const hidden = all.length - pinned.length - others.length;
    say(byId("filter-note"), hidden ? `${plural(hidden, "task")} not shown` : "");
  }

  /** Mark the task that is explained, null for none. */
  explained(task) {
    for (const card of this.cards.values()) card.setExplained(card.task === task);
  }

  /** What changed, to be read out: of the first tasks as they are shown. */
  get sentences() {
    const nodes = [...byId("cards").children].slice(0, SPOKEN);
    return nodes.map((node) => this.cards.get(node.dataset.task).sentence).join(". ");
  }
}

function pins() {
  try {
    return JSON.parse(kept("pins") ?? "[]");
  } catch {
    return [];
  }
}
