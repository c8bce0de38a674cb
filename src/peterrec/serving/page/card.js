// One task: its answer with the patch beside the one without, and what the last change of the history did.

import { title } from "./api.js";
import { arrange, el, NONE, percent, plural, say, short, signed, unseen } from "./dom.js";

const ALL = 6; // classes that are shown without "others", in their own order
const MOST = 5; // of more classes, by the answer with the patch

const name = (item) => title(item) ?? String(item);

export class Card {
  constructor(task, { pin, why }) {
    this.task = task;
    this.heading = el("h3", {}, task);
    this.pin = el("button", { type: "button", class: "quiet pin", onclick: () => pin(this), "aria-pressed": "false" });
    this.why = el("button", { type: "button", class: "why-button", onclick: () => why(this), "aria-pressed": "false" },
      "Why?", unseen(` ${task}`));
    this.summary = el("p", { class: "summary" });
    this.change = el("p", { class: "change small" });
    this.version = el("p", { class: "muted small version" });
    this.body = el("div", { class: "answer" });
    this.rows = new Map();
    this.node = el("article", { class: "card", "data-task": task },
      el("div", { class: "heading" }, this.heading, el("span", { class: "buttons" }, this.why, this.pin)),
      this.summary, this.body, this.change, this.version);
    this.setPinned(false);
  }

  setPinned(pinned) {
    this.pinned = pinned;
    this.pin.setAttribute("aria-pressed", String(pinned));
    this.pin.replaceChildren(pinned ? "Pinned" : "Pin", unseen(` ${this.task}`));
  }

  setExplained(explained) {
    this.why.setAttribute("aria-pressed", String(explained));
    this.node.classList.toggle("explained", explained);
  }

  /** Show answers of the task, and what is different from the one `before` (null: nothing to compare with). */
  show(patched, plain, before) {
    if (this.kind !== patched.kind) {
      this.kind = patched.kind;
      this.rows.clear();
      this.body.replaceChildren();
    }
    const replaced = before && before.version !== patched.version;
    const earlier = before && !replaced && before.kind === patched.kind ? before : null;
    if (patched.kind === "classification") this.classes(patched, plain, earlier);
    else if (patched.kind === "regression") this.number(patched, plain, earlier);
    else if (patched.kind === "multilabel") this.labels(patched, plain);
    else this.ranking(patched, plain, earlier);
    const notes = [`Version ${patched.version}`, replaced ? "new since the last change" : "",
      alike(patched, plain) ? "the same with and without patch" : ""];
    say(this.version, notes.filter(Boolean).join(", "));
  }

  /** One sentence for those who do not see the card. */
  get sentence() {
    return `${this.task}: ${this.summary.textContent}`;
  }

  classes(patched, plain, earlier) {
    const change = earlier && 100 * (patched.probabilities[patched.label] - earlier.probabilities[patched.label]);
    const other = plain.label === patched.label ? "" : `, without patch ${plain.label}`;
    say(this.summary, `${patched.label}, ${percent(patched.probabilities[patched.label])}${other}`);
    const turned = earlier && earlier.label !== patched.label;
    say(this.change, change === null ? "" : turned ? `Now ${patched.label} instead of ${earlier.label}`
      : `${patched.label}: ${signed(change, 1)} points since the last change`);
    if (!this.table) {
      this.table = el("tbody");
      const headings = ["Class", "With patch", "Without"].map((text) => el("th", { scope: "col" }, text));
      const head = el("thead", {}, el("tr", {}, ...headings));
      this.body.replaceChildren(el("table", { class: "classes" }, head, this.table));
    }
    const rows = shown(patched.probabilities).map(({ key, label, classes }) => {
      const sum = (answer) => classes.reduce((total, name) => total + (answer.probabilities[name] ?? NaN), 0);
      return this.bars(key, label, [patched, plain].map(sum), earlier && sum(earlier),
        [patched.label === label, plain.label === label]);
    });
    arrange(this.table, rows);
  }

  number(patched, plain, earlier) {
    const text = (answer) => [short(answer.prediction),
      ...Object.entries(answer.quantiles).map(([key, value]) => `${key} ${short(value)}`)].join(", ");
    say(this.summary, `${short(patched.prediction)}, without patch ${short(plain.prediction)}`);
    say(this.change, earlier ? `${signed(patched.prediction - earlier.prediction, 2)} since the last change` : "");
    this.body.replaceChildren(el("p", {}, `With patch: ${text(patched)}`), el("p", {}, `Without: ${text(plain)}`));
  }

  labels(patched, plain) {
    const likely = (answer) => answer.labels.join(", ") || "no label is likely";
    const text = (answer) => Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1])
      .map(([key, value]) => `${key} ${percent(value)}`).join(", ");
    say(this.summary, `${likely(patched)}; without patch: ${likely(plain)}`);
    say(this.change, "");
    this.body.replaceChildren(el("p", {}, `With patch: ${text(patched)}`), el("p", {}, `Without: ${text(plain)}`));
  }

  bars(key, label, shares, earlier, best) {
    let row = this.rows.get(key);
    if (!row) {
      const cell = (kind) => el("td", {}, el("span", { class: `track ${kind}`, "aria-hidden": "true" },
        el("span", { class: "bar" })), el("span", { class: "number" }), " ", el("span", { class: "delta small" }));
      row = el("tr", {}, el("th", { scope: "row" }), cell("with"), cell("without"));
      this.rows.set(key, row);
    }
    say(row.children[0], label);
    row.children[0].classList.toggle("best", best[0]);
    shares.forEach((share, i) => {
      const cell = row.children[i + 1];
      cell.classList.toggle("best", best[i]);
      cell.querySelector(".bar").style.width = `${100 * (share || 0)}%`;
      say(cell.querySelector(".number"), percent(share));
    });
    const points = earlier === null ? "" : signed(100 * (shares[0] - earlier), 1);
    const delta = row.querySelector(".delta");
    say(delta, Number(points) === 0 || points === NONE ? "" : points);
    delta.classList.toggle("up", points.startsWith("+"));
    delta.classList.toggle("down", points.startsWith("\u2212"));
    return row;
  }

  ranking(patched, plain, earlier) {
    this.table = null;
    say(this.summary, patched.items.length ? `First: ${name(patched.items[0])}` : "Nothing left to recommend");
    say(this.change, earlier ? moved(earlier.items, patched.items) : "");
    const list = (heading, answer, others, kind) => el("div", {},
      el("h4", {}, heading),
      el("ol", { class: `ranking ${kind}` }, ...answer.items.map((item, i) => el("li", {},
        el("span", { class: "name" }, name(item)), " ", others && mark(item, i, others), " ",
        el("span", { class: "muted small number" }, short(answer.scores[i]))))));
    this.body.replaceChildren(el("div", { class: "sides" },
      list("With patch", patched, plain.items, "with"), list("Without", plain, null, "without")));
  }
}

/** Whether the patch, if the bundle has one, does nothing here. */
function alike(patched, plain) {
  const rounded = (_, value) => (typeof value === "number" ? value.toFixed(4) : value);
  const numbers = (one) => JSON.stringify(one.probabilities ?? (one.items ? [one.items.map(String), one.scores] : [one.prediction, one.quantiles]),
    rounded);
  return numbers(patched) === numbers(plain);
}

/** Classes to show: all in their order if they are few, else the most probable and the rest as one. */
function shown(probabilities) {
  const names = Object.keys(probabilities);
  const row = (one) => ({ key: `class ${one}`, label: one, classes: [one] });
  if (names.length <= ALL) return names.map(row);
  const ranked = names.sort((a, b) => probabilities[b] - probabilities[a]);
  const rest = ranked.slice(MOST);
  return [...ranked.slice(0, MOST).map(row), { key: "others", label: plural(rest.length, "other"), classes: rest }];
}

/** What the patch did to the place of an item. */
function mark(item, index, others) {
  const before = others.findIndex((one) => String(one) === String(item));
  if (before === index) return null;
  if (before < 0) {
    return el("span", { class: "mark up small" }, "new", unseen(" through the patch, not listed without it"));
  }
  const up = before > index;
  return el("span", { class: `mark small ${up ? "up" : "down"}` },
    `${up ? "\u25b2" : "\u25bc"}${Math.abs(before - index)}`, unseen(` ${up ? "up" : "down"} through the patch`));
}

/** What the last change of the history did to a list. */
function moved(before, now) {
  const places = new Map(before.map((item, i) => [String(item), i]));
  const news = now.filter((item) => !places.has(String(item)));
  const rises = now.filter((item, i) => (places.get(String(item)) ?? i) > i);
  const more = (n) => (n > 0 ? ` and ${n} more` : "");
  const some = (items) => items.slice(0, 2).map(name).join(", ") + more(items.length - 2);
  const parts = [news.length ? `new ${some(news)}` : "", rises.length ? `up ${some(rises)}` : ""].filter(Boolean);
  if (parts.length) return `Since the last change: ${parts.join("; ")}`;
  return now.length === before.length && now.every((item, i) => String(item) === String(before[i]))
    ? "The same list as before the last change" : "Shorter since the last change";
}
