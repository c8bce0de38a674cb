// What outlives a reload: kept for this tab only, never in the address.

const memory = new Map(); // where the browser keeps nothing

/** Text kept under a name, or null. */
export function kept(name) {
  try {
    return sessionStorage.getItem(`peterrec.${name}`) ?? memory.get(name) ?? null;
  } catch {
    return memory.get(name) ?? null;
  }
}

/** Keep text under a name; null forgets it. */
export function keep(name, text) {
  memory.delete(name);
  try {
    if (text === null) sessionStorage.removeItem(`peterrec.${name}`);
    else sessionStorage.setItem(`peterrec.${name}`, text);
  } catch {
    if (text !== null) memory.set(name, text); // full, or not allowed
  }
}
