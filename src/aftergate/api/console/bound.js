// The bound object, field by field. INVARIANT: every value of the object is on the page; what this code does not know has its place too.

import { el } from "./dom.js";
import { at, span } from "./time.js";

// By the path of a member. What is not listed is shown under its own name.
const WORDS = {
  approval_id: "Approval", evaluation_id: "Answers the denial", request_id: "Request", digest: "Digest of the transaction", "batch › root": "Digest of the list",
  "batch › count": "Items", usable_until: "Usable until at the latest", rp_id: "Signed for", on_behalf_of: "On behalf of", callers: "Asked through",
  "executor › jkt": "Usable only with the key", "executor › x5t#S256": "Usable only with the certificate", "policy › digest": "Digest of the policies", "policy › ids": "Denied by",
  "quorum › needed": "Approvals needed", "quorum › groups": "By members of", "quorum › device_bound": "Only device-bound authenticators", "quorum › each": "Each of",
  reason: "Reason given", v: "Form",
};
// Ids, keys and digests: nobody reads them, but they are bound too.
const MARKS = /(^|› )(approval_id|evaluation_id|request_id|digest|root|jkt|x5t#S256|v)$/;

/** A number with its thousands set apart to the eye; copied or read out it is exactly the bound text. */
function number(value) {
  const text = String(value);
  const parts = /^(-?)(\d{5,})(\.\d+)?$/.exec(text);
  if (parts === null) return text;
  const first = parts[2].length % 3 || 3;
  const groups = [parts[2].slice(0, first), ...(parts[2].slice(first).match(/\d{3}/g) ?? [])];
  return el("span", {}, parts[1], groups.map((digits) => el("span", { class: "d3" }, digits)), parts[3] ?? "");
}

/** Characters that would not be seen, or would turn the text round, are written out. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\u2028\u2029]/gu, (c) => (c === "\n" ? c : `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`));
}

function value(given) {
  if (given === null) return el("span", { class: "none" }, "null");
  if (given === "") return el("span", { class: "none" }, "(empty text)");
  if (typeof given === "number") return number(given);
  if (typeof given === "boolean") return given ? "yes" : "no";
  if (Array.isArray(given) && given.length === 0) return el("span", { class: "none" }, "(none)");
  if (Array.isArray(given) && given.every((each) => typeof each !== "object" || each === null)) return given.flatMap((each, i) => [i ? ", " : "", value(each)]);
  if (typeof given === "object") return Object.keys(given).length ? el("code", {}, visible(JSON.stringify(given, null, 1))) : el("span", { class: "none" }, "(none)");
  return visible(String(given));
}

const row = (name, shown, mark = false) => el("div", {}, el("dt", {}, visible(name)), el("dd", { class: mark ? "mark" : null }, shown));

/** Rows for the members of an object; those that are objects themselves are flattened, each with its path. Our own members have words for them. */
function rows(held, { own = false, before = "" } = {}) {
  return Object.entries(held).flatMap(([name, given]) => {
    const path = before ? `${before} › ${name}` : name;
    const inner = given !== null && typeof given === "object" && !Array.isArray(given) && Object.keys(given).length;
    return inner ? rows(given, { own, before: path }) : [row((own && WORDS[path]) || path.replaceAll("_", " "), value(given), own && MARKS.test(path))];
  });
}

/** What would be done: the action, its object, and all their properties, in large plain type. */
export function effect(item, context = {}) {
  const { action, resource } = item;
  return el("dl", { class: "fields large" }, row("Action", value(action.name)), row(resource.type, value(resource.id)), propertiesOf(item), contextRows(context));
}

/** One of a list: its head names action and object, the rest is in its rows. */
export const itemHead = (item, i) => [el("span", {}, `${i + 1}.`), el("strong", {}, visible(item.action.name)), el("span", {}, `${visible(item.resource.type)} `, el("strong", {}, visible(item.resource.id)))];
export function itemRows(item) {
  const made = propertiesOf(item);
  return made.length ? el("dl", { class: "fields medium" }, made) : null;
}

const propertiesOf = ({ action, resource }) => [
  rows(action.properties ?? {}), rows(resource.properties ?? {}), rows(rest(action, ["name", "properties"])), rows(rest(resource, ["type", "id", "properties"])),
].flat();

const contextRows = (context) => [rows(context.transaction ?? {}), rows(rest(context, ["transaction"]))].flat();

/** What holds for all items of a list alike, or null. */
export function shared(context) {
  const made = contextRows(context);
  return made.length ? el("dl", { class: "fields large" }, made) : null;
}

export function who(object) {
  const { subject } = object;
  return el("dl", { class: "fields" }, row(`Asked by, ${subject.type}`, value(subject.id)), rows(subject.properties ?? {}), rows(rest(subject, ["type", "id", "properties"])),
    rows(only(object, ["on_behalf_of", "reason"]), { own: true }));
}

const SHOWN = ["action", "resource", "context", "items", "subject", "on_behalf_of", "reason", "batch", "expires_at", "usable_s"];
const FIRST = ["quorum", "usable_until", "callers", "executor", "policy"];

/** Everything else that is bound: terms, keys, digests. */
export function terms(object) {
  const held = rest(object, SHOWN);
  return el("dl", { class: "fields small" },
    row("To be decided by", [at(object.expires_at), ` (${object.expires_at})`]),
    row("Usable for, once approved", [span(object.usable_s), ` (${object.usable_s} seconds)`]),
    rows(only(held, FIRST), { own: true }), rows(rest(held, FIRST), { own: true }),
    object.batch ? rows({ batch: rest(object.batch, ["totals"]) }, { own: true }) : null,
    (object.items ?? []).map((item, i) => rows(rest(item, ["action", "resource"]), { own: true }).map((each) => { each.firstChild.prepend(`Item ${i + 1}: `); return each; })));
}

/** The first few plain properties in one line, for a list of requests; null where there are none. */
export function facts(one) {
  const { currency, ...held } = one.resource?.properties ?? {};
  const plain = Object.entries(held).filter(([, given]) => typeof given !== "object");
  const sum = plain.some(([, given]) => typeof given === "number");
  const pairs = one.batch ? (one.batch.totals ?? []).map((each) => [`total ${each.member}`, `${each.sum} ${each.unit}`])
    : [...plain.map(([name, given]) => [name.replaceAll("_", " "), typeof given === "number" ? `${given} ${currency ?? ""}` : String(given)]), ...(currency && !sum ? [["currency", currency]] : [])];
  const short = pairs.filter(([name, given]) => name.length + given.length <= 60).slice(0, 4);
  return short.length ? el("p", { class: "facts-line" }, short.map(([name, given]) => el("span", {}, el("small", {}, visible(name)), " ", visible(given.trim())))) : null;
}

/** Sums over a list, as they are bound. */
export function sums(totals) {
  if (!totals || totals.length === 0) return null;
  return el("p", { class: "totals" }, totals.map((each) => el("span", {}, `Total ${visible(each.member)} `, el("strong", {}, number(each.sum)), each.unit ? ` ${visible(each.unit)}` : "")));
}

function rest(held, without) {
  return Object.fromEntries(Object.entries(held).filter(([name]) => !without.includes(name)));
}

const only = (held, names) => Object.fromEntries(names.filter((name) => name in held).map((name) => [name, held[name]]));
