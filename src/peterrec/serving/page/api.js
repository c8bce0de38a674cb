// Requests to the service. Nothing is kept of them but the key and how long questions took.

import { keep, kept } from "./session.js";

/** What the service, or the way to it, said no with. */
export class ApiError extends Error {
  constructor(status, message, { code = "", remedy = "", retryAfter = null, request = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, remedy, retryAfter, request });
  }
}

export const hasKey = () => Boolean(kept("key"));
export const setKey = (key) => keep("key", key);

/** Whether a header can carry it. */
export const isKey = (key) => /^[\x21-\x7e]+$/.test(key);

// Ids beyond 2^53 lose their last digits as numbers; where the browser shows the source they are kept whole.
const whole = (_, value, context) =>
  typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
    ? BigInt(context.source)
    : value;
const raw = (_, value) => {
  if (typeof value !== "bigint") return value;
  return JSON.rawJSON ? JSON.rawJSON(String(value)) : Number(value);
};
export const parse = (text) => JSON.parse(text, whole);
export const write = (value) => JSON.stringify(value, raw);

/** Ask; returns the answer's JSON. Raises ApiError (status 0: no answer), or AbortError once `signal` says so. */
export async function call(method, path, { body, signal, timed } = {}) {
  const headers = { Accept: "application/json" };
  if (hasKey()) headers.Authorization = `Bearer ${kept("key")}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const started = performance.now();
  let response;
  let text;
  try {
    response = await fetch(path, {
      method, headers, signal, body: body === undefined ? undefined : write(body), cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service cannot be reached", { remedy: "Check the connection, and that it runs." });
  }
  if (!response.ok) throw refusal(response, text);
  timed?.(performance.now() - started);
  try {
    return parse(text);
  } catch {
    throw new ApiError(response.status, "The answer is not JSON", { remedy: "Is a proxy answering for the service?" });
  }
}

function refusal(response, text) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // a proxy's own page
  }
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return new ApiError(response.status, error.message || `The service answered with status ${response.status}`, {
    code: error.code, remedy: error.remedy,
    retryAfter: Number.isFinite(seconds) ? Math.max(1, seconds) : null,
    request: response.headers.get("X-Request-ID") ?? "",
  });
}

const titles = new Map(); // id as text -> title, or null for one that has none

/** Title of an item, null where it has none or none is known yet. */
export const title = (item) => titles.get(String(item)) ?? null;

/** Remember titles that came along with items. */
export function learn(found) {
  for (const { item, title: text } of found) titles.set(String(item), text ?? null);
}

/** Learn the titles of items, in as few requests as that takes. */
export async function fetchTitles(items, signal) {
  const missing = [...new Map(items.map((item) => [String(item), item])).entries()].filter(([id]) => !titles.has(id));
  for (let start = 0; start < missing.length; start += 200) {
    const part = missing.slice(start, start + 200);
    const answer = await call("POST", "v1/items/titles", { body: { items: part.map(([, item]) => item) }, signal });
    for (const [id] of part) titles.set(id, Object.hasOwn(answer.titles, id) ? answer.titles[id] : null);
  }
}
