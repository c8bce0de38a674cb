// The page: a history on one side, every task's answer on the other.

import { Answers } from "./answers.js";
import { call, fetchTitles, learn, title } from "./api.js";
import { byId, percent, plural, say, short, signed } from "./dom.js";
import { asCatalogue, History, idsIn } from "./history.js";
import { Search } from "./search.js";
import { Latency, showBundles, tasks as readTasks, versions } from "./service.js";
import { sentence, Trouble } from "./trouble.js";

const EXAMPLE = 5; // events of an example history
const SLOW = 400; // milliseconds after which the page says that it waits
const LATE = 4000; // and after which it says that the service does not answer
const CHECKED = 20; // pasted ids that are looked up one by one when the catalogue lacks some

let tasks = [];
let numbered = false; // whether the catalogue's ids are whole numbers
let answered = null; // items that the cards answer for
let asking = new AbortController();
let explaining = new AbortController();
let explained = null; // task whose contributions are shown

const latency = new Latency();
const trouble = new Trouble(start);
const answers = new Answers(why);
const history = new History((what) => ask(what), () => named(history.shown).then(() => history.draw()));
new Search((item) => history.add([item]), (error) => error.status === 401 && trouble.show(error, start), patiently);

/** Learn what can be asked, then ask. */
async function start() {
  trouble.clear();
  try {
    const items = await patiently(async () => {
      await refresh();
      return (await call("GET", "v1/items?limit=1")).items;
    }, start);
    learn(items);
    numbered = items.length > 0 && typeof items[0].item !== "string";
  } catch (error) {
    return trouble.show(error, start);
  }
  return ask("");
}

async function refresh() {
  tasks = await readTasks();
  showBundles(tasks, await versions());
}

/** Ask every task about the history, with and without patches. The latest question wins. */
async function ask(what) {
  asking.abort();
  explaining.abort();
  trouble.clear();
  asking = new AbortController();
  const { signal } = asking;
  const { items } = history;
  const slow = setTimeout(() => say(byId("answers-note"), "Asking\u2026"), SLOW);
  try {
    const found = await patiently(async () => {
      if (!tasks.length) await refresh();
      return tasks.length && !signal.aborted ? question(items, signal) : null;
    }, () => ask(what), markOld);
    if (signal.aborted) return;
    trouble.over();
    if (found) show(found, items, what);
    else say(byId("answers-note"), "No bundle is loaded, so there is nothing to answer.");
  } catch (error) {
    if (error.name === "AbortError") return;
    markOld();
    trouble.show(error, () => (tasks.length ? ask(what) : start()));
  } finally {
    clearTimeout(slow);
  }
}

/** Wait for `work()`; when it takes so long that the service may hang say so, and call `old()`; `retry()`: the button. */
async function patiently(work, retry, old = () => {}) {
  const late = setTimeout(() => {
    old();
    trouble.late(LATE / 1000, retry);
  }, LATE);
  try {
    const result = await work();
    trouble.answered();
    return result;
  } finally {
    clearTimeout(late);
  }
}

/** Say that the answers are those to an earlier question. */
function markOld() {
  const events = answered && plural(answered.length, "event");
  say(byId("answers-note"), events ? `Not up to date: these are for ${events}.` : "");
  byId("cards").classList.toggle("stale", answered !== null);
}

/** Null: as each bundle says, which is how it was evaluated. */
function excludeSeen() {
  return JSON.parse(byId("exclude").value || "null");
}

async function question(items, signal) {
  const request = { items, tasks: "*", k: Number(byId("count").value), exclude_seen: excludeSeen() };
  const body = { requests: [{ ...request, patched: true }, { ...request, patched: false }] };
  const found = await call("POST", "v1/predict", { body, signal, timed: (ms) => latency.add(ms) });
  const ranked = found.answers.flatMap((one) => Object.values(one.tasks)).flatMap((one) => one.items ?? []);
  await named([...history.shown, ...ranked], signal);
  return found.answers;
}

/** Titles are asked for before anything is drawn, so that no id flickers; without them ids are shown. */
async function named(items, signal) {
  try {
    await fetchTitles(items, signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
}

function show([patched, plain], items, what) {
  const same = answered !== null && items.length === answered.length && items.every((one, i) => one === answered[i]);
  answers.show(patched.tasks, plain.tasks, answered !== null && !same);
  answered = items;
  byId("cards").classList.remove("stale");
  const unknown = patched.unknown_items;
  say(byId("answers-note"), `For ${items.length ? plural(items.length, "event") : "somebody new, without events"}.`
    + (unknown ? ` ${plural(unknown, "event")} not in the catalogue, skipped.` : "")
    + (patched.known_events === 0 ? " Nothing is known of this user: this is what is known of everybody." : ""));
  if (what) say(byId("live"), `${what}. ${answers.sentences}`);
  const names = Object.keys(patched.tasks);
  if (names.length !== tasks.length || tasks.some((one) => patched.tasks[one.name]?.version !== one.version)) {
    refresh().catch(() => {}); // bundles came or went; the next question tells if that failed
  }
  if (unknown) markUnknown(unknown, items).catch(() => {});
  if (explained !== null && !Object.hasOwn(patched.tasks, explained)) explained = null;
  answers.explained(explained);
  history.draw();
  explain();
}

/** Find which ids the catalogue lacks, and say so in the list if they are as many as the answer counted. */
async function markUnknown(count, items) {
  const open = history.entries.filter((entry) => entry.known === undefined);
  const ids = [...new Map(open.map((entry) => [String(entry.item), entry.item])).values()];
  if (ids.length > CHECKED) return;
  const missing = new Set();
  for (const item of ids) {
    const found = await call("GET", `v1/items?${new URLSearchParams({ q: item, limit: 20 })}`);
    if (!found.items.some((one) => String(one.item) === String(item))) missing.add(String(item));
  }
  const lacking = history.entries.filter((entry) => entry.known === false || missing.has(String(entry.item)));
  if (lacking.length !== count || history.items.some((one, i) => one !== items[i])) return;
  for (const entry of open) entry.known = !missing.has(String(entry.item));
  history.draw();
}

function why(task) {
  explained = explained === task ? null : task;
  answers.explained(explained);
  explain();
}

/** Show what each event adds to the answer of the task that is explained. */
async function explain() {
  explaining.abort();
  byId("why").hidden = explained === null;
  if (explained === null) return history.explain(null);
  const task = explained;
  if (!history.items.length) {
    history.explain(null);
    return say(byId("why-text"), `Add events to see what each of them adds to ${task}.`);
  }
  explaining = new AbortController();
  try {
    const body = { items: history.items, task, exclude_seen: excludeSeen(), patched: true };
    const found = await patiently(() => call("POST", "v1/explain", { body, signal: explaining.signal }), explain);
    const kind = tasks.find((one) => one.name === task)?.kind;
    const classes = kind === "classification" || kind === "multilabel";
    await named([found.of], explaining.signal);
    history.explain(found.contributions, classes ? (x) => `${signed(100 * x, 1)} points` : (x) => signed(x, 3));
    const value = classes ? percent(found.value) : `${kind === "regression" ? "" : "score "}${short(found.value)}`;
    return say(byId("why-text"), `What each event adds to ${task}: ${label(found.of, classes)} (${value}). `
      + "It is how much lower that would be without the event.");
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    history.explain(null);
    if (error.status === 401) return trouble.show(error, explain);
    return say(byId("why-text"), [`${task} cannot be explained now.`, sentence(error.message), sentence(error.remedy)]
      .filter(Boolean).join(" "));
  }
}

const label = (of, classes) => (classes ? String(of) : title(of) ?? String(of));

byId("why-stop").addEventListener("click", () => {
  const task = explained;
  why(task);
  answers.cards.get(task)?.why.focus();
});
byId("exclude").addEventListener("change", () => ask(""));
byId("count").addEventListener("change", () => ask(""));

byId("example").addEventListener("click", async () => {
  try {
    const { items } = await patiently(() => call("GET", "v1/items?limit=50"), () => byId("example").click());
    learn(items);
    const picked = items.map((one) => [Math.random(), one.item]).sort(([a], [b]) => a - b).slice(0, EXAMPLE);
    history.replace(picked.map(([, item]) => ({ item, known: true })), "Example history of frequent items");
  } catch (error) {
    trouble.show(error, () => byId("example").click());
  }
});

byId("paste-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const ids = asCatalogue(idsIn(byId("paste").value), numbered);
  byId("paste").value = "";
  if (ids.length) history.add(ids);
});

byId("user-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const user = byId("user").value.trim();
  if (!user) return;
  try {
    const { events } = await patiently(() => call("GET", `v1/users/${encodeURIComponent(user)}`),
      () => byId("user-form").requestSubmit());
    say(byId("user-status"), `Loaded ${plural(events.length, "event")}`);
    history.replace(events.map(({ item, known }) => ({ item, known })), `Loaded ${plural(events.length, "event")}`);
  } catch (error) {
    say(byId("user-status"), error.status === 404 ? "Nothing is known of this user" : error.message);
    if (error.status === 401) trouble.show(error, start);
  }
});

history.draw();
start();
