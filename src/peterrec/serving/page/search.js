// The search box: a combobox with a list of items, by the pattern that screen readers know.

import { call, learn } from "./api.js";
import { byId, el, plural, say, whole } from "./dom.js";

const WAIT = 120; // milliseconds without a key before it asks
const LIMIT = 20;

export class Search {
  /**
   * `choose(item)` is called with what was picked, `refused(error)` with what the service says no with;
   * `patiently(work, retry, old)` waits for an answer.
   */
  constructor(choose, refused, patiently) {
    Object.assign(this, { choose, refused, patiently });
    this.input = byId("search");
    this.list = byId("found");
    this.status = byId("search-status");
    this.found = [];
    this.active = -1;
    this.asked = null; // the text that `found` answers
    this.timer = 0;
    this.input.addEventListener("input", () => this.later());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("click", () => this.list.hidden && this.ask());
    // A press must not take the focus from the box: it would close the list before the click arrives.
    this.list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.take(Number(option.dataset.index));
    });
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), WAIT);
  }

  async ask() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    const text = this.input.value.trim();
    try {
      const query = new URLSearchParams({ limit: LIMIT, ...(text ? { q: text } : {}) });
      const { items } = await this.patiently(() => call("GET", `v1/items?${query}`, { signal }), () => this.ask(),
        () => say(this.status, "The search has no answer yet"));
      learn(items);
      this.asked = text;
      this.show(items);
    } catch (error) {
      if (error.name === "AbortError") return this.request.signal === signal && say(this.status, ""); // closed
      this.close();
      say(this.status, error.message);
      this.refused(error);
    }
    return undefined;
  }

  show(items) {
    if (document.activeElement !== this.input) return;
    this.found = items;
    this.list.replaceChildren(...items.map((one, index) =>
      el("li", { role: "option", id: `found-${index}`, "data-index": index, "aria-selected": "false" },
        el("span", { class: "name" }, one.title ?? String(one.item)),
        one.title === null ? null : el("span", { class: "muted small id" }, String(one.item)),
        el("span", { class: "muted small number" }, `${whole(one.count)}×`))));
    this.list.hidden = items.length === 0;
    this.list.scrollTop = 0;
    this.input.setAttribute("aria-expanded", String(items.length > 0));
    const more = items.length === LIMIT ? "The first " : "";
    say(this.status, items.length ? `${more}${plural(items.length, "item")}${this.asked ? "" : ", most frequent first"}`
      : "No item found");
    this.mark(this.asked && items.length ? 0 : -1);
  }

  mark(index) {
    this.list.children[this.active]?.setAttribute("aria-selected", "false");
    this.active = index;
    const option = this.list.children[index];
    if (!option) return this.input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    return this.input.setAttribute("aria-activedescendant", option.id);
  }

  key(event) {
    if (event.isComposing) return;
    const { length } = this.found;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (this.list.hidden) this.ask();
      else this.mark(this.active < 0 ? (step > 0 ? 0 : length - 1) : (this.active + step + length) % length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      // What is listed may still answer an earlier text: then look first, and let the next Enter choose.
      if (this.list.hidden || this.asked !== this.input.value.trim()) this.ask();
      else if (this.active >= 0) this.take(this.active);
    } else if (event.key === "Escape") {
      if (!this.list.hidden) event.preventDefault();
      else this.input.value = "";
      this.close();
      say(this.status, "");
    }
  }

  take(index) {
    const one = this.found[index];
    this.input.value = "";
    this.close();
    say(this.status, "");
    this.input.focus();
    this.choose(one.item);
  }

  close() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.mark(-1);
  }
}
