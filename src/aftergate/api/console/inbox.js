// What waits for this person, and what was decided lately.

import { call } from "./api.js";
import { effect, facts, itemHead, itemRows, shared, sums, visible, who } from "./bound.js";
import { same } from "./canonical.js";
import { $, band, el, hush, icon, once, say, tell } from "./dom.js";
import { enter } from "./page.js";
import { get, words } from "./passkey.js";
import { status } from "./status.js";
import { ago, at, secondsTo, span } from "./time.js";
import { totals } from "./totals.js";

const EVERY_MS = 5000;
const SOON_S = 120;
const LATELY = 20;
const picked = new Set();
let waiting = [];
let drawn = "";
let together = false;
let turns = 0;

function line(one) {
  const open = el("a", { href: `/approvals/${encodeURIComponent(one.id)}` }, visible(one.what));
  const box = one.can_decide ? el("input", { type: "checkbox", "aria-label": `Choose ${one.what}`, "data-id": one.id, onchange: (event) => pick(one.id, event.target.checked) }) : null;
  if (box) box.checked = picked.has(one.id);
  const done = one.approved_by.length;
  return el("li", { class: picked.has(one.id) ? "line picked" : "line", "data-line": one.id },
    el("div", { class: "pick" }, box),
    el("div", {}, el("h3", {}, open),
      facts(one),
      el("p", { class: "by" }, `${visible(one.subject.id)} asked `, el("time", { datetime: one.asked_at, title: at(one.asked_at) }, ago(one.asked_at)),
        one.reason ? [": ", el("q", {}, visible(one.reason))] : ""),
      el("p", { class: "tags" }, band(one.risk_band, "risk"),
        one.batch ? el("span", { class: "tag" }, `list of ${one.batch.count}`) : null,
        one.needed.needed > 1 ? el("span", { class: "tag" }, `${done} of ${one.needed.needed} approved`) : null,
        one.break_glass ? el("span", { class: "tag bad" }, "glass broken") : null,
        one.can_decide ? null : el("span", { class: "fine" }, one.why_not.reason === "already_decided" ? "you have decided" : visible(one.why_not.detail)))),
    el("p", { class: "time", "data-ends": one.expires_at }));
}

function pick(id, on) {
  if (on) picked.add(id); else picked.delete(id);
  document.querySelector(`[data-line="${CSS.escape(id)}"]`)?.classList.toggle("picked", on);
  dock();
}

/** The bar below the list, while something is chosen. */
function dock() {
  let bar = $("dock");
  if (picked.size === 0) { bar?.remove(); return; }
  if (bar === null) {
    bar = el("div", { class: "dock", id: "dock", role: "region", "aria-label": "Chosen requests" },
      el("p", { class: "what" }, el("strong", { id: "chosen" }), "Look at all of them, then approve with one signature."),
      el("button", { class: "button", type: "button", onclick: () => { picked.clear(); draw(true); } }, "Choose none"),
      el("button", { class: "button main", type: "button", id: "together", onclick: (event) => once(event.target, "Loading…", review) }, "Review together"));
    $("waiting").append(bar);
  }
  $("chosen").textContent = picked.size === 1 ? "1 request chosen" : `${picked.size} requests chosen`;
}

/** The whole list that one signature will cover, from the objects that will be signed. */
async function review() {
  hush();
  const ids = waiting.filter((one) => picked.has(one.id)).map((one) => one.id);
  let begun;
  try {
    begun = await call("POST", "/v1/approvals/batch/challenge", { requests: ids });
  } catch (error) { say("bad", words(error)); return; }
  together = true;
  const approve = el("button", { class: "button main", type: "button", onclick: () => once(approve, "Waiting for your passkey…", () => sign(ids, begun)) }, `Approve ${ids.length === 1 ? "it" : `all ${ids.length}`} with passkey`);
  const back = () => { together = false; load(true).then(() => document.querySelector("h1").focus(), (error) => say("bad", words(error))); };
  const box = el("div", { class: "card bound" }, el("h2", { tabindex: "-1", id: "review-title" }, ids.length === 1 ? "1 request, one signature" : `${ids.length} requests, one signature`),
    el("p", { class: "fine" }, "All of them are approved, or none. What you see is what is signed."),
    sums(totals(begun.objects)),
    el("ol", {}, begun.objects.map((object, i) => el("li", { class: "group" },
      el("h3", {}, el("span", { class: "grow" }, `Request ${i + 1} of ${begun.objects.length}`), band(object.risk.band, "risk")),
      object.items ? [el("ol", {}, object.items.map((item, k) => el("li", { class: "item" }, el("p", { class: "head" }, itemHead(item, k)), itemRows(item)))), shared(object.context)]
        : effect(object, object.context),
      who(object),
      el("p", { class: "fine" }, el("a", { href: `/approvals/${encodeURIComponent(object.request_id)}` }, "Everything else that is bound"))))));
  const bar = el("div", { class: "decide" }, el("div", { class: "row" }, el("p", { class: "what" }, el("strong", {}, "Approve exactly this list?"), el("span", {}, "Each can be used once.")),
    el("div", { class: "buttons" }, el("button", { class: "button", type: "button", onclick: back }, "Back"), approve)));
  $("waiting").replaceChildren(box, bar);
  for (const id of ["reviews", "others", "lately"]) $(id).hidden = true;
  $("review-title").focus();
}

async function sign(ids, begun) {
  try {
    for (const object of begun.objects) {
      const now = await call("GET", `/v1/approvals/${encodeURIComponent(object.request_id)}`);
      if (!same(now.object, object)) throw new Error("A request is not what this page shows. Nothing was signed: go back and look again.");
    }
    const assertion = await get(begun.public_key);
    await call("POST", "/v1/approvals/batch/decision", { requests: ids, challenge_id: begun.challenge_id, assertion });
  } catch (error) { say("bad", words(error)); return; }
  together = false;
  picked.clear();
  await load(true);
  say("good", ids.length === 1 ? "1 request approved." : `${ids.length} requests approved.`);
  document.querySelector("h1").focus();
}

function clocks() {
  for (const node of document.querySelectorAll("[data-ends]")) {
    const left = secondsTo(node.dataset.ends);
    node.classList.toggle("soon", left < SOON_S);
    node.replaceChildren(el("strong", {}, left > 0 ? span(left) : "over"), left > 0 ? " left" : "");
  }
}

function reviews(list) {
  $("reviews").hidden = list.length === 0;
  if ($("reviews").contains(document.activeElement)) return;
  $("review-list").replaceChildren(el("ul", {}, list.map((one) => {
    const note = el("textarea", { id: `note-${one.id}`, maxlength: 4000, required: true });
    const form = el("form", {}, el("div", { class: "field" }, el("label", { for: `note-${one.id}` }, "What did you find?"), note),
      el("div", { class: "buttons" }, el("button", { class: "button", type: "submit" }, "Close the review")));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await call("POST", `/v1/reviews/${encodeURIComponent(one.id)}/close`, { note: note.value });
        note.blur();
        await load(true);
        say("good", "The review is closed.");
        document.querySelector("h1").focus();
      } catch (error) { say("bad", words(error)); }
    });
    return el("li", { class: "card review" }, el("p", { class: "head" }, el("span", { class: "tag bad" }, one.used ? "used" : "not used yet"),
      el("a", { href: `/approvals/${encodeURIComponent(one.request)}` }, `${visible(one.opened_by)} went ahead without approval`),
      el("time", { class: "fine", datetime: one.opened_at, title: at(one.opened_at) }, ago(one.opened_at))), el("q", {}, visible(one.reason)), form);
  })));
}

function draw(force = false) {
  const mine = waiting.filter((one) => one.can_decide);
  const others = waiting.filter((one) => !one.can_decide);
  for (const id of [...picked]) if (!mine.some((one) => one.id === id)) picked.delete(id);
  const state = JSON.stringify([waiting, [...picked]]);
  if (together || (state === drawn && !force)) return;
  drawn = state;
  const focused = document.activeElement?.dataset?.id ?? document.activeElement?.getAttribute?.("href");
  const count = mine.length;
  $("lead").textContent = count === 0 ? "Nothing waits for your decision." : count === 1 ? "One request waits for your decision." : `${count} requests wait for your decision.`;
  $("waiting-count").textContent = count || "";
  document.title = `${count ? `(${count}) ` : ""}Approvals · Aftergate`;
  $("waiting").replaceChildren(count ? el("ul", {}, mine.map((one) => line(one)))
    : el("div", { class: "empty" }, icon("check"), el("h2", {}, "All done"), el("p", {}, "New requests appear here by themselves.")));
  $("others").hidden = others.length === 0;
  $("other-list").replaceChildren(el("ul", {}, others.map((one) => line(one))));
  dock();
  clocks();
  if (focused) document.querySelector(`[data-id="${CSS.escape(focused)}"], a[href="${CSS.escape(focused)}"]`)?.focus();
}

function lately(all) {
  const held = all.filter((one) => one.status !== "pending").slice(0, LATELY);
  $("lately").hidden = held.length === 0;
  if ($("lately-list").contains(document.activeElement)) return;
  const cell = (name, ...inner) => el("td", { "data-name": name }, inner);
  $("lately-list").replaceChildren(el("table", { class: "fold" }, el("caption", { class: "unseen" }, "Requests decided lately"),
    el("thead", {}, el("tr", {}, ["Request", "Asked by", "Outcome", "Asked"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, held.map((one) => el("tr", {}, el("th", { scope: "row" }, el("a", { href: `/approvals/${encodeURIComponent(one.id)}` }, visible(one.what))),
      cell("Asked by", visible(one.subject.id)), cell("Outcome", status(one.status)),
      el("td", { class: "when" }, el("time", { datetime: one.asked_at, title: at(one.asked_at) }, ago(one.asked_at))))))));
}

async function load(mine = false) {
  const how = { background: !mine };
  const now = await call("GET", "/v1/approvals", undefined, how);
  const before = new Set(waiting.map((one) => one.id));
  const changed = now.requests.length !== before.size || now.requests.some((one) => !before.has(one.id));
  const fresh = now.requests.filter((one) => one.can_decide && !before.has(one.id)).length;
  const first = drawn === "";
  waiting = now.requests;
  draw(mine);
  if (fresh && !first) tell(fresh === 1 ? "A new request waits for you." : `${fresh} new requests wait for you.`);
  turns += 1;
  if (together || (!mine && !changed && turns % 6)) return; // what is decided changes less often than what waits
  const [all, open] = await Promise.all([call("GET", "/v1/approvals?all=true", undefined, how), call("GET", "/v1/reviews", undefined, how)]);
  lately(all.requests);
  reviews(open.reviews);
}

async function start() {
  const me = await enter();
  if (me.authenticators === 0) {
    say("info", "You have no authenticator yet.", "Register one before you approve.", el("a", { class: "button small", href: "/approvals/authenticators" }, "Register one"));
  }
  await load(true);
  setInterval(clocks, 1000);
  setInterval(() => {
    if (document.visibilityState === "visible") load().catch(() => { /* shown again at the next turn, or the login page is on its way */ });
  }, EVERY_MS);
}

start().catch((error) => say("bad", words(error)));
