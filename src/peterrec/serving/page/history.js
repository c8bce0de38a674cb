// The history that is asked about: an ordered list, oldest first, and what each event of it adds to an answer.

import { parse, title, write } from "./api.js";
import { arrange, byId, el, plural, say, unseen, whole } from "./dom.js";
import { keep, kept } from "./session.js";

const SHOWN = 100; // newest events that are listed before somebody wants all

export class History {
  /** `changed(what)` is called after every change, with a sentence that says which; `opened()` when all are listed. */
  constructor(changed, opened) {
    this.changed = changed;
    this.list = byId("events");
    this.rows = new Map(); // entry -> its row
    this.entries = restore();
    this.all = false;
    this.effects = null;
    byId("clear").addEventListener("click", () => this.replace([], "History cleared"));
    byId("earlier").addEventListener("click", () => {
      this.all = true;
      this.draw();
      this.list.querySelector("button")?.focus();
      opened();
    });
  }

  get items() {
    return this.entries.map((entry) => entry.item);
  }

  /** Items that are listed. */
  get shown() {
    return this.all ? this.items : this.items.slice(-SHOWN);
  }

  add(items) {
    const many = items.length === 1 ? name(items[0]) : plural(items.length, "item");
    this.update([...this.entries, ...items.map((item) => ({ item }))], `Added ${many}`);
    this.list.scrollTop = this.list.scrollHeight;
  }

  /** Other entries: `{item, known}`, where known is false for one that the catalogue does not have. */
  replace(entries, what) {
    this.all = false;
    this.update(entries, what);
    this.list.scrollTop = this.list.scrollHeight;
  }

  update(entries, what) {
    this.entries = entries;
    if (this.effects) this.effects = { contributions: [], text: () => "\u2026" }; // until the next ones are known
    keep("history", write(entries.map(({ item }) => item)));
    this.draw();
    this.changed(what);
  }

  remove(entry) {
    const at = this.entries.indexOf(entry);
    const next = this.entries[at + 1] ?? this.entries[at - 1];
    this.update(this.entries.filter((one) => one !== entry), `Removed ${name(entry.item)}`);
    const row = next && this.rows.get(next);
    (row?.isConnected ? row.querySelector(".remove") : byId("search")).focus({ preventScroll: Boolean(row) });
  }

  move(entry, step) {
    const from = this.entries.indexOf(entry);
    const to = from + step;
    if (to < 0 || to >= this.entries.length) return;
    const entries = [...this.entries];
    [entries[from], entries[to]] = [entries[to], entries[from]];
    this.update(entries, `Moved ${name(entry.item)} to place ${to + 1} of ${entries.length}`);
    this.rows.get(entry).scrollIntoView({ block: "nearest" });
  }

  /** Show what each event adds: (T,) numbers and how to write one, or null to show nothing. */
  explain(contributions, text) {
    this.effects = contributions && { contributions, text };
    this.draw();
  }

  draw() {
    const { entries } = this;
    const hidden = entries.length - this.shown.length;
    const rows = entries.slice(hidden).map((entry, i) => this.row(entry, hidden + i));
    const shown = new Set(entries);
    for (const entry of this.rows.keys()) if (!shown.has(entry)) this.rows.delete(entry);
    arrange(this.list, rows);
    this.list.setAttribute("start", hidden + 1);
    byId("earlier").hidden = hidden === 0;
    say(byId("earlier"), `Show ${plural(hidden, "earlier event")}`);
    byId("clear").disabled = entries.length === 0;
    say(byId("history-note"), entries.length ? `${plural(entries.length, "event")}, oldest first`
      : "No events yet: the answers are those for somebody new.");
  }

  row(entry, index) {
    let row = this.rows.get(entry);
    if (!row) this.rows.set(entry, (row = this.make(entry)));
    const text = title(entry.item);
    say(row.querySelector(".place"), whole(index + 1));
    say(row.querySelector(".name"), text ?? String(entry.item));
    say(row.querySelector(".id"), [text === null ? "" : String(entry.item),
      entry.known === false ? "not in the catalogue" : ""].filter(Boolean).join(" \u00b7 "));
    for (const [kind, end] of [["up", index === 0], ["down", index === this.entries.length - 1]]) {
      row.querySelector(`.${kind}`).setAttribute("aria-disabled", String(end));
    }
    for (const button of row.querySelectorAll("button")) {
      button.setAttribute("aria-label", `${button.title}: ${text ?? entry.item}, place ${index + 1}`);
    }
    this.effect(row.querySelector(".effect"), index);
    return row;
  }

  make(entry) {
    const button = (kind, sign, label, act) =>
      el("button", { type: "button", class: `${kind} icon`, title: label, onclick: act }, sign);
    return el("li", {},
      el("span", { class: "place muted", "aria-hidden": "true" }),
      el("span", { class: "what" }, el("span", { class: "name" }), " ", el("span", { class: "id muted small" })),
      el("span", { class: "buttons" },
        button("up", "\u2191", "Move up", () => this.move(entry, -1)),
        button("down", "\u2193", "Move down", () => this.move(entry, 1)),
        button("remove", "\u00d7", "Remove", () => this.remove(entry))),
      el("span", { class: "effect", hidden: true }));
  }

  effect(node, index) {
    node.hidden = !this.effects;
    if (!this.effects) return node.replaceChildren();
    const { contributions, text } = this.effects;
    const value = contributions[index];
    const largest = contributions.reduce((most, one) => Math.max(most, Math.abs(one)), 0) || 1;
    const bar = el("span", { class: `bar ${value < 0 ? "minus" : "plus"}` });
    bar.style.width = `${(50 * Math.abs(value ?? 0)) / largest}%`;
    bar.hidden = !value;
    const meaning = !value ? "" : value > 0 ? ", speaks for it" : ", speaks against it";
    return node.replaceChildren(el("span", { class: "track", "aria-hidden": "true" }, bar),
      el("span", { class: "number" }, text(value)), unseen(meaning));
  }
}

const name = (item) => title(item) ?? String(item);

function restore() {
  try {
    return parse(kept("history") ?? "[]").map((item) => ({ item }));
  } catch {
    return [];
  }
}

/** Ids in pasted text: one a line; in a single line, between commas, semicolons or tabs, else between spaces. */
export function idsIn(text) {
  const between = /\n/.test(text.trim()) ? /\r?\n/ : /[,;\t]/.test(text) ? /[,;\t]/ : /\s+/;
  return text.split(between).map((id) => id.trim()).filter(Boolean);
}

/** Ids as the catalogue has them: whole numbers where it numbers its items, else text. */
export function asCatalogue(ids, numbered) {
  return ids.map((id) => (numbered && /^-?\d+$/.test(id) ? parse(id) : id));
}
