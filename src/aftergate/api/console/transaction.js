// One request in full: what is bound, how risky it is and why, who else decides, and the decision.

import { call, Problem } from "./api.js";
import { effect, itemHead, itemRows, shared, sums, terms, visible, who } from "./bound.js";
import { challengeOf, same } from "./canonical.js";
import { $, band, el, hush, icon, meter, once, say, tell } from "./dom.js";
import { enter } from "./page.js";
import { get, words } from "./passkey.js";
import { status, STATUS } from "./status.js";
import { ago, at, secondsTo, span } from "./time.js";

const EVERY_MS = 5000;
const SOON_S = 120;
const id = decodeURIComponent(location.pathname.split("/").pop());
const path = `/v1/approvals/${encodeURIComponent(id)}`;
const chosen = new Set();
let shown = null;
let me = null;
let ticking = [];

function timer(one) {
  const bar = meter();
  const strong = el("strong", {});
  const line = el("p", { class: "left", role: "timer", "aria-label": "Time left to decide" }, strong, el("span", {}));
  const whole = (Date.parse(one.expires_at) - Date.parse(one.asked_at)) / 1000;
  const told = new Set();
  ticking.push(() => {
    const left = secondsTo(one.expires_at);
    strong.textContent = left > 0 ? span(left) : "Over";
    line.lastChild.textContent = left > 0 ? "left to decide" : "";
    line.classList.toggle("soon", left < SOON_S);
    bar.set(left / whole, left < SOON_S);
    for (const mark of [120, 30]) {
      if (left <= mark && left > mark - 5 && !told.has(mark)) { told.add(mark); tell(`${span(mark)} left to decide.`); }
    }
  });
  return el("div", {}, line, bar.node);
}

function outcome(one) {
  const held = [el("p", { class: "tags" }, status(one.status))];
  if (one.outcome) held.push(el("p", {}, visible(one.outcome)));
  if (one.usable_until && one.status === "approved") {
    const node = el("p", { class: "left" }, el("strong", {}), el("span", {}, "left to use it"));
    ticking.push(() => {
      const left = secondsTo(one.usable_until);
      node.firstChild.textContent = left > 0 ? span(left) : "Ran out";
      node.lastChild.textContent = left > 0 ? "left to use it" : "";
    });
    held.push(node);
  }
  for (const use of one.used) held.push(el("p", { class: "fine" }, one.object.items ? `Item ${use.item + 1} was used ` : "Used ", el("time", { datetime: use.at }, at(use.at)), "."));
  return held;
}

function risk(one) {
  const score = (name, held) => el("div", {}, el("dt", {}, name), el("dd", {}, String(held.score), el("small", {}, "of 100"), band(held.band)));
  const found = one.risk.findings;
  return el("section", { class: "card", "aria-labelledby": "risk-title" }, el("h2", { id: "risk-title" }, "Risk"),
    el("dl", { class: "scores" }, score("When asked", one.risk.at_request), score("Now", one.risk.now)),
    found.length ? el("ul", { class: "why" }, found.map((each) => el("li", {},
      el("p", { class: "head" }, band(each.severity), each.new ? el("span", { class: "tag bad" }, "new since it was asked") : null, el("time", { class: "fine", datetime: each.time, title: at(each.time) }, ago(each.time))),
      el("h3", {}, visible(each.title || each.detection)), each.narrative ? el("p", {}, visible(each.narrative)) : null, el("code", {}, visible(each.detection)))))
      : el("p", { class: "fine" }, "Nothing was found about who asks, their session or their credential."));
}

function approvals(one) {
  const { needed, groups, each } = one.needed;
  const yes = one.votes.filter((vote) => vote.verdict === "approved").length;
  return el("section", { class: "card", "aria-labelledby": "votes-title" }, el("h2", { id: "votes-title" }, "Approvals"),
    el("p", { class: "fine" }, `${yes} of ${needed} given, by members of ${groups.map(visible).join(", ")}.`,
      each ? ` Each of these is needed: ${each.map((need) => `${need.needed} of ${need.groups.map(visible).join(", ")}`).join("; ")}.` : ""),
    needed > 1 && el("p", { class: "steps", "aria-hidden": "true" }, Array.from({ length: Math.min(needed, 12) }, (_, i) => el("span", { class: i < yes ? "done" : "" }))),
    one.votes.length ? el("ul", { class: "plain" }, one.votes.map((vote) => el("li", {},
      el("span", { class: "grow" }, visible(vote.person), vote.person === me.id ? " (you)" : "", vote.reason ? el("q", {}, visible(vote.reason)) : null),
      el("span", {}, status(vote.verdict), " ", el("time", { class: "fine", datetime: vote.at, title: at(vote.at) }, ago(vote.at)))))) : el("p", { class: "fine" }, "Nobody has decided yet."));
}

function lately(one) {
  return el("section", { class: "card", "aria-labelledby": "lately-title" }, el("h2", { id: "lately-title" }, `What else ${visible(one.subject.id)} asked, 7 days`),
    one.lately.length ? el("ul", { class: "plain" }, one.lately.map((each) => el("li", {}, el("a", { class: "grow", href: `/approvals/${encodeURIComponent(each.id)}` }, visible(each.what)),
      el("span", {}, status(each.status), " ", el("time", { class: "fine", datetime: each.at, title: at(each.at) }, ago(each.at)))))) : el("p", { class: "fine" }, "Nothing."));
}

/** The bound fields: what would be done on top, the rest below, nothing left out. */
function bound(one) {
  const { object } = one;
  const list = object.items;
  const common = list ? shared(object.context) : null;
  const body = !list ? effect(object, object.context) : el("div", {}, sums(object.batch?.totals),
    el("ol", {}, list.map((item, i) => itemOf(one, item, i))), common ? el("div", { class: "group" }, el("h3", {}, "For all of them"), common) : null);
  return el("section", { class: "card bound", "aria-labelledby": "bound-title", id: "bound" }, el("h2", { id: "bound-title" }, "Exactly this"),
    el("p", { class: "fine" }, "Your approval holds for these values and no others. If one changes, it is void."), body,
    el("div", { class: "group" }, el("h3", {}, "Who asks"), who(object)),
    el("div", { class: "group" }, el("h3", {}, "Terms and marks"), terms(object)));
}

function itemOf(one, item, i) {
  const state = one.items[i] === "pending" ? null : el("span", { class: "state" }, status(one.items[i]));
  if (!one.can_decide) return el("li", { class: "item" }, el("p", { class: "head" }, itemHead(item, i), state), itemRows(item));
  const box = el("input", { type: "checkbox", checked: chosen.has(i) });
  const made = el("li", { class: chosen.has(i) ? "item" : "item off" }, el("label", {}, box, itemHead(item, i), state), itemRows(item));
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(i); else chosen.delete(i);
    made.classList.toggle("off", !box.checked);
    relabel();
  });
  return made;
}

function relabel() {
  const all = shown.object.items.length;
  const approve = $("approve");
  if (approve === null) return;
  approve.textContent = chosen.size === all ? `Approve all ${all} with passkey` : `Approve ${chosen.size} of ${all} with passkey`;
  approve.disabled = chosen.size === 0;
  $("sure").textContent = chosen.size === all ? "Approve exactly this list?" : chosen.size ? `Approve ${chosen.size} of ${all}? The others are refused.` : "Nothing is chosen.";
}

function decide(one) {
  if (!one.can_decide) {
    const mine = one.votes.some((vote) => vote.person === me.id && vote.verdict === "approved");
    if (one.status === "approved" && one.needed.groups.some((group) => me.groups.includes(group))) return takeBack(mine);
    if (one.status !== "pending") return null;
    return el("div", { class: "decide" }, el("p", { class: "what" }, el("strong", {}, one.why_not.reason === "already_decided" ? "You have decided." : "You cannot decide this."), el("span", {}, `${visible(one.why_not.detail)}.`)));
  }
  if (me.authenticators === 0) {
    return el("div", { class: "decide" }, el("div", { class: "row" }, el("p", { class: "what" }, el("strong", {}, "Register an authenticator first."), el("span", {}, "You approve by signing with it.")),
      el("div", { class: "buttons" }, el("a", { class: "button main", href: "/approvals/authenticators" }, "Register one"))));
  }
  const reason = el("textarea", { id: "reason", maxlength: 2000, required: true, "aria-describedby": "reason-hint" });
  const form = el("form", { hidden: true }, el("div", { class: "field" }, el("label", { for: "reason" }, "Why not?"), reason, el("p", { class: "hint", id: "reason-hint" }, "It is recorded and shown with the request.")),
    el("div", { class: "buttons" }, el("button", { class: "button no", type: "submit" }, "Deny"),
      el("button", { class: "button", type: "button", onclick: () => { form.hidden = true; row.hidden = false; no.focus({ preventScroll: true }); } }, "Back")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    once(form.querySelector("button"), "Denying…", () => deny(reason.value));
  });
  const left = el("span", {});
  ticking.push(() => {
    const seconds = secondsTo(one.expires_at);
    left.textContent = seconds > 0 ? `, ${span(seconds)} left` : ", over";
  });
  const no = el("button", { class: "button no", type: "button", onclick: () => { form.hidden = false; row.hidden = true; reason.focus({ preventScroll: true }); } }, "Deny…");
  const yes = el("button", { class: "button main", type: "button", id: "approve", onclick: () => once(yes, "Waiting for your passkey…", approve) }, "Approve with passkey");
  const row = el("div", { class: "row" }, el("p", { class: "what" }, el("strong", { id: "sure" }, "Approve exactly this?"), band(one.risk.now.band, "risk"), el("span", {}, visible(one.what), left)), el("div", { class: "buttons" }, no, yes));
  return el("div", { class: "decide", role: "region", "aria-label": "Your decision" }, row, form);
}

function takeBack(mine) {
  const reason = el("textarea", { id: "reason", maxlength: 2000, required: true });
  const form = el("form", { hidden: true }, el("div", { class: "field" }, el("label", { for: "reason" }, "Why is it taken back?"), reason),
    el("div", { class: "buttons" }, el("button", { class: "button no", type: "submit" }, "Take it back")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    once(form.querySelector("button"), "Taking it back…", () => settled(call("POST", `${path}/revoke`, { reason: reason.value }), "Taken back. It cannot be used any more."));
  });
  const open = el("button", { class: "button", type: "button", onclick: () => { form.hidden = false; open.hidden = true; reason.focus({ preventScroll: true }); } }, "Take it back…");
  return el("div", { class: "decide" }, el("div", { class: "row" }, el("p", { class: "what" }, el("strong", {}, mine ? "You approved this." : "This is approved."), el("span", {}, "While it has not been used it can be taken back.")), el("div", { class: "buttons" }, open)), form);
}

async function approve() {
  hush();
  let after;
  try {
    const list = shown.object.items;
    const begun = await call("POST", `${path}/challenge`, list && chosen.size < list.length ? { items: [...chosen].sort((a, b) => a - b) } : {});
    // The page signs what it shows, and computes the digest itself: an answer for anything else is not signed.
    if (!same(shown.object, begun.object) || (await challengeOf(begun.object)) !== begun.public_key.challenge) {
      throw new Problem(0, { title: "What the server asks to sign is not what this page shows. Nothing was signed: reload the page." });
    }
    if (begun.object.risk.score > shown.risk.now.score) {
      await load(true);
      throw new Problem(0, { title: "The risk rose while you were looking. Nothing was signed: look again." });
    }
    const assertion = await get(begun.public_key);
    after = call("POST", `${path}/decision`, { decision: "approve", challenge_id: begun.challenge_id, assertion });
  } catch (error) {
    if (error.status === 409) await load(true).catch(() => {});
    say("bad", words(error));
    return;
  }
  await settled(after, "Approved.");
}

const deny = (reason) => settled(call("POST", `${path}/decision`, { decision: "deny", reason }), "Denied.");

async function settled(answer, done) {
  let one;
  try { one = await answer; } catch (error) {
    await load(true).catch(() => {});
    say("bad", words(error));
    return;
  }
  draw(one);
  const more = one.status === "pending" ? one.needed.needed - one.approved_by.length : 0;
  say("good", more > 0 ? `${done} ${more === 1 ? "One more approval is" : `${more} more approvals are`} needed.` : done,
    "", el("a", { class: "button small", href: "/approvals" }, "Back to what waits"));
  document.querySelector("h1").focus();
  window.scrollTo(0, 0);
}

function draw(one) {
  const before = shown;
  shown = one;
  if (before === null) (one.object.items ?? []).forEach((_, i) => chosen.add(i));
  ticking = [];
  const title = visible(one.what);
  document.title = `${title} · Aftergate`;
  const main = $("main");
  const messages = $("messages") ?? el("div", { id: "messages" });
  main.replaceChildren(...[
    el("nav", { class: "crumb", "aria-label": "Back" }, el("a", { href: "/approvals" }, icon("back"), "Approvals")),
    el("div", { class: "title" }, el("h1", { tabindex: "-1" }, title), one.status === "pending" ? band(one.risk.now.band, "risk") : status(one.status)),
    el("p", { class: "under" }, `${visible(one.subject.id)} asked `, el("time", { datetime: one.asked_at, title: at(one.asked_at) }, ago(one.asked_at)), one.reason ? [": ", el("q", {}, visible(one.reason))] : "."),
    one.break_glass ? el("div", { class: "say bad" }, icon("warn"), el("div", {}, el("p", {}, "The glass was broken: it went ahead without approval, and a review is open."))) : null,
    messages,
    el("div", { class: "two" }, el("div", {}, bound(one)),
      el("div", {}, el("section", { class: "card", "aria-labelledby": "time-title" }, el("h2", { id: "time-title" }, one.status === "pending" ? "Time" : "Outcome"), one.status === "pending" ? timer(one) : outcome(one)),
        risk(one), approvals(one), lately(one))),
    decide(one),
  ].filter((node) => node !== null));
  if (one.object.items) relabel();
  for (const turn of ticking) turn();
}

/** What changed since it was drawn, in words for those who do not see it change. */
function changes(before, now) {
  if (before.status !== now.status) return `This request is now ${STATUS[now.status]?.[1] ?? now.status}.`;
  if (now.risk.now.score > before.risk.now.score) return "The risk has risen. Look again.";
  if (now.votes.length > before.votes.length) return `${now.votes[now.votes.length - 1].person} has decided.`;
  return "";
}

async function load(mine = false) {
  const one = await call("GET", path, undefined, { background: !mine });
  if (shown !== null && JSON.stringify(one) === JSON.stringify(shown)) return;
  // Nobody is interrupted while typing or signing; what matters then is checked by the server anyway.
  const busy = document.querySelector(".decide form:not([hidden]), [aria-disabled='true']");
  if (shown !== null && busy && !mine) return;
  const told = shown === null ? "" : changes(shown, one);
  const kept = document.activeElement?.id;
  draw(one);
  if (kept) $(kept)?.focus();
  if (told) { tell(told); say("info", told); }
}

async function start() {
  me = await enter();
  try {
    await load(true);
  } catch (error) {
    $("main").replaceChildren(el("nav", { class: "crumb", "aria-label": "Back" }, el("a", { href: "/approvals" }, icon("back"), "Approvals")), el("h1", { tabindex: "-1" }, "No such request"),
      el("p", { class: "under" }, error.status === 404 ? "It is not there, or it is not for you." : words(error)));
    return;
  }
  setInterval(() => { for (const turn of ticking) turn(); }, 1000);
  setInterval(() => {
    if (document.visibilityState === "visible" && shown) load().catch(() => { /* tried again at the next turn, or the login page is on its way */ });
  }, EVERY_MS);
}

start();
