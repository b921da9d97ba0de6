// Canonical JSON (RFC 8785) and the digest that is signed: this page computes it from what it shows.

import { text } from "./passkey.js";

export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    // Names in the order of their UTF-16 code units, which is how JavaScript compares text.
    const names = Object.keys(value).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** base64url of SHA-256("tx-approval/v1\n" || canonical object): what the authenticator is asked to sign. */
export async function challengeOf(object) {
  return text(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`tx-approval/v1\n${canonical(object)}`)));
}

// What is added to the shown object for each approver and challenge.
const ADDED = ["approver", "nonce", "risk", "approved_items", "approved_totals"];

/** Whether an object that is to be signed says, but for these members, exactly what was shown. */
export function same(shown, toSign) {
  const bare = (object) => Object.fromEntries(Object.entries(object).filter(([name]) => !ADDED.includes(name)));
  return canonical(bare(shown)) === canonical(bare(toSign));
}
