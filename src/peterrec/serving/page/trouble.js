// What went wrong, in words: what happened, what to do, and when the page asks again by itself.

import { hasKey, isKey, setKey } from "./api.js";
import { byId, say } from "./dom.js";

const AGAIN = 5; // seconds, where the service does not say
const LONGEST = 60; // seconds that it waits by itself

const WORDS = {
  0: "The service cannot be reached",
  403: "This key may not do that",
  429: "The service is busy",
  503: "The service is not ready",
  504: "The answer took too long",
};

export class Trouble {
  /** `keyed()` is called when there is another key. */
  constructor(keyed) {
    this.keyed = keyed;
    this.timer = 0;
    this.retry = null;
    this.waiting = false; // whether the page says that no answer has come
    byId("retry").addEventListener("click", () => this.again());
    window.addEventListener("online", () => this.again());
    byId("key-form").addEventListener("submit", (event) => this.submit(event));
    byId("change-key").addEventListener("click", () => this.askKey("Use another key."));
    byId("forget-key").addEventListener("click", () => {
      setKey(null);
      this.keyed();
    });
  }

  /** Say what went wrong; `retry()` does it again. */
  show(error, retry) {
    this.clear();
    this.retry = retry;
    if (error.status === undefined) console.error(error); // a mistake of the page, not an answer
    if (error.status === 401) return this.askKey(hasKey() ? "The key was not accepted. Enter another one."
      : "This service answers only with a key.");
    const what = WORDS[error.status] ?? (error.status >= 500 ? "The service failed" : "");
    const detail = error.status && error.message !== what ? sentence(error.message) : "";
    say(byId("problem-text"), [sentence(what), detail].filter(Boolean).join(" ") || sentence(String(error.message)));
    const wait = this.wait(error);
    say(byId("problem-remedy"), [sentence(error.remedy), error.request && error.status >= 500
      ? `Its log has this as request ${error.request}.` : "", "The history is kept.",
      wait ? `Asks again in ${Math.ceil(wait)} s.` : ""].filter(Boolean).join(" "));
    byId("problem").hidden = false;
    if (wait) this.timer = setTimeout(() => this.again(), 1000 * wait);
    return this.buttons();
  }

  /** Say that no answer has come for so many seconds; it is still waited for. */
  late(seconds, retry) {
    this.clear();
    this.retry = retry;
    this.waiting = true;
    say(byId("problem-text"), "The service does not answer.");
    say(byId("problem-remedy"), `Nothing came for ${seconds} s; the page still waits. The history is kept.`);
    byId("problem").hidden = false;
  }

  /** Seconds until the page asks again by itself; 0: only when told. */
  wait({ status, retryAfter }) {
    if (![0, 429, 503].includes(status)) return 0;
    return (retryAfter ?? AGAIN) <= LONGEST ? retryAfter ?? AGAIN : 0;
  }

  again() {
    clearTimeout(this.timer);
    const { retry } = this;
    this.retry = null;
    retry?.();
  }

  /** All is well again, or something else is asked: what was to be retried no longer is. */
  clear() {
    clearTimeout(this.timer);
    this.retry = null;
    this.waiting = false;
  }

  /** An answer came to something: the service does not hang. */
  answered() {
    if (this.waiting) this.over();
  }

  /** All is well, and what could not be done is no longer told. */
  over() {
    this.clear();
    byId("problem").hidden = true;
    say(byId("problem-text"), "");
    this.closeKey();
  }

  askKey(why) {
    byId("problem").hidden = true;
    say(byId("key-why"), why);
    byId("key-form").hidden = false;
    byId("key").focus();
    this.buttons();
  }

  closeKey() {
    const focused = byId("key-form").contains(document.activeElement);
    byId("key-form").hidden = true;
    byId("key").value = "";
    if (focused) byId("search").focus();
    this.buttons();
  }

  buttons() {
    byId("change-key").hidden = !hasKey() || !byId("key-form").hidden;
    byId("forget-key").hidden = !hasKey();
  }

  submit(event) {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (!isKey(key)) return this.askKey("A key has only letters, digits and signs, without spaces. Enter it again.");
    setKey(key);
    return this.keyed();
  }
}

/** As a sentence, where there is anything. */
export function sentence(text) {
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
