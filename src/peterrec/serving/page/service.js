// What answers: the model, its bundles and their versions, and how long questions take.

import { call } from "./api.js";
import { byId, draw, el, NONE, plural, say, short, whole } from "./dom.js";

const KEPT = 60; // times that the figures are of

/** What may be asked. */
export async function tasks() {
  const found = await call("GET", "v1/tasks");
  const { model } = found;
  say(byId("model"), `${whole(model.items)} items, ${model.blocks} blocks of ${model.channels} channels, `
    + `${model.kind}, reads the last ${whole(model.max_length)} events`);
  byId("model").title = `Fingerprint ${model.fingerprint}`;
  return found.tasks;
}

/** All `versions` of all bundles and those that `failed`, or null for a key that may not know. */
export async function versions() {
  try {
    return await call("GET", "v1/bundles");
  } catch {
    return null; // the page answers without them
  }
}

/** List bundles: all that operators may know, else what everybody may. */
export function showBundles(tasksNow, found) {
  const failed = (found?.failed ?? []).map((one) => `${one.name} could not be loaded: ${one.message}.`);
  const note = !tasksNow.length ? "No bundle is loaded. Start the service with --bundle, or PUT one to v1/bundles/NAME."
    : found ? "" : "Parameters, metrics and earlier versions are shown to keys that may operate.";
  say(byId("service-note"), [...failed, note].filter(Boolean).join(" "));
  byId("service-note").hidden = !byId("service-note").textContent;
  if (!tasksNow.length && !found?.versions.length) return byId("bundles").replaceChildren();
  const columns = found ? OPERATOR : READER;
  const rows = found?.versions ?? tasksNow;
  return byId("bundles").replaceChildren(el("table", { class: "list" },
    el("thead", {}, el("tr", {}, ...columns.map(([heading]) => el("th", { scope: "col" }, heading)))),
    el("tbody", {}, ...rows.map((one) => el("tr", {}, ...columns.map(([heading, value], i) =>
      cell(i ? "td" : "th", heading, value(one))))))));
}

function cell(tag, heading, value) {
  const attributes = { scope: tag === "th" && "row", "data-label": heading, class: value === NONE && "none" };
  return el(tag, attributes, value);
}

const WHEN = { dateStyle: "medium", timeStyle: "short" };

const READER = [
  ["Task", (one) => one.name],
  ["Kind", (one) => one.kind],
  ["Answers with", (one) => (one.kind === "ranking" ? `${whole(one.targets)} items` : `${one.classes.length} classes`)],
  ["Version", (one) => one.version],
];

const OPERATOR = [
  ["Task", (one) => one.name],
  ["Version", (one) => el("span", {}, `${one.version} `, el("span", { class: one.active ? "tag on" : "tag" },
    one.active ? "answers" : one.withdrawn ? "withdrawn" : "earlier"))],
  ["Kind", (one) => one.kind],
  ["Strategy", (one) => one.strategy],
  ["Parameters", (one) => whole(one.parameters)],
  ["Patched blocks", (one) => whole(one.patched_blocks)],
  ["Metrics (valid)", (one) => figures(one.metrics) || NONE],
  ["Search", (one) => (one.index ? search(one.index) : NONE)],
  ["Loaded", (one) => new Date(1000 * one.loaded_at).toLocaleString("en-GB", WHEN)],
];

function search({ kind, recall }) {
  return kind !== "exact" && typeof recall === "number" ? `${kind}, recall ${short(recall)}` : kind;
}

function figures(metrics) {
  const numbers = Object.entries(metrics ?? {}).filter(([, value]) => typeof value === "number");
  const some = numbers.slice(0, 4).map(([name, value]) => `${name} ${short(value)}`).join(", ");
  return numbers.length > 4 ? `${some}, \u2026` : some;
}

/** How long the page's own questions took, in milliseconds. */
export class Latency {
  constructor() {
    this.times = [];
    this.text = el("span", { class: "small muted" });
    this.line = draw("polyline", { fill: "none", "vector-effect": "non-scaling-stroke" });
    this.drawing = draw("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", class: "spark",
      "aria-hidden": "true" }, this.line);
    byId("latency").replaceChildren(this.text, this.drawing);
    this.drawing.classList.add("hidden");
  }

  add(milliseconds) {
    this.times = [...this.times, milliseconds].slice(-KEPT);
    const sorted = [...this.times].sort((a, b) => a - b);
    const at = (share) => time(sorted[Math.ceil(share * sorted.length) - 1]);
    const n = this.times.length;
    say(this.text, `Last ${time(milliseconds)} ms, median ${at(0.5)}, p95 ${at(0.95)} (${plural(n, "question")})`);
    this.text.title = "From asking to the whole answer, as this page saw it";
    const most = Math.max(...sorted, 1e-9);
    const x = (i) => (n < 2 ? 100 : (100 * i) / (n - 1));
    const y = (one) => 22 - (20 * one) / most;
    this.line.setAttribute("points", this.times.map((one, i) => `${x(i).toFixed(1)},${y(one).toFixed(1)}`).join(" "));
    this.drawing.classList.toggle("hidden", n < 2);
  }
}

const time = (milliseconds) => milliseconds.toFixed(milliseconds < 10 ? 1 : 0);
