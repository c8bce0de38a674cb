// Elements and numbers. Text is only ever set as text: titles and names may hold any characters.

export const byId = (id) => document.getElementById(id);

/** Make an element; `attributes` with value null or false are left out, `on...` ones are listeners. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an element of a drawing. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Change text only if it differs: a live region would be read again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Put children in this order, touching nothing if they already are: moving an element loses focus and transitions. */
export function arrange(parent, children) {
  const same = children.length === parent.children.length && children.every((node, i) => parent.children[i] === node);
  if (same) return;
  const focused = document.activeElement;
  parent.replaceChildren(...children);
  if (focused && focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

/** Text for those who see no marks. */
export const unseen = (text) => el("span", { class: "hidden" }, text);

export const whole = (number) => Number(number).toLocaleString("en");
export const NONE = "\u2013"; // of what is no number, such as null
export const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)}%` : NONE);
export const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;

/** A signed number with a true minus; what rounds to nothing has no sign. */
export function signed(value, digits) {
  if (!Number.isFinite(value)) return NONE;
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? "\u2212" : "+"}${text}`;
}

/** A score or another figure, short. */
export function short(value) {
  if (!Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  const tiny = size < 0.001 || size >= 100000;
  const text = Number.isInteger(size) ? whole(size) : tiny ? size.toExponential(1) : size.toFixed(size >= 100 ? 1 : 3);
  return value < 0 ? `\u2212${text}` : text;
}
