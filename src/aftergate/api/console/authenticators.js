// A person's own authenticators.

import { call } from "./api.js";
import { $, el, hush, icon, once, say, tell } from "./dom.js";
import { enter } from "./page.js";
import { create, words } from "./passkey.js";
import { ago, at } from "./time.js";

let me = null;

function failed(error) {
  if (error.code === "login-again") {
    say("info", "Log in again to change your authenticators.", "Your login must be less than five minutes old for this.",
      el("a", { class: "button small", href: "/login?onward=/approvals/authenticators&fresh=1" }, "Log in again"));
  } else say("bad", words(error));
}

function kind(key) {
  if (key.transports.includes("internal")) return "laptop";
  return key.transports.includes("hybrid") ? "phone" : "key";
}

function line(key, only) {
  const form = el("form", { hidden: true }, el("div", { class: "field" },
    el("label", { for: `n-${key.id}` }, "New name"), el("input", { type: "text", id: `n-${key.id}`, maxlength: 200, value: key.name, autocomplete: "off", required: true })),
    el("div", { class: "buttons" }, el("button", { class: "button small", type: "submit" }, "Save"),
      el("button", { class: "button small", type: "button", onclick: () => { form.hidden = true; rename.focus(); } }, "Cancel")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await call("PATCH", `/v1/me/authenticators/${key.id}`, { name: form.querySelector("input").value });
      await show();
      tell("Renamed.");
      document.querySelector(`[data-rename="${key.id}"]`)?.focus();
    } catch (error) { failed(error); }
  });
  const rename = el("button", { class: "button small", type: "button", "data-rename": key.id, "aria-label": `Rename ${key.name}`,
    onclick: () => { form.hidden = false; form.querySelector("input").focus(); } }, "Rename");
  const sure = el("div", { class: "say bad", hidden: true, role: "group", "aria-label": `Remove ${key.name}?` }, icon("warn"), el("div", {},
    el("p", {}, `Remove “${key.name}”? It will open and approve nothing any more.`),
    only ? el("p", {}, "It is your only one: without it you need a new link to get in.") : null,
    key.opened_this_session ? el("p", {}, "You logged in with it, so this ends your session.") : null,
    el("div", { class: "buttons" },
      el("button", { class: "button small no", type: "button", onclick: (event) => once(event.target, "Removing…", () => take(key)) }, "Remove it"),
      el("button", { class: "button small", type: "button", onclick: () => { sure.hidden = true; remove.focus(); } }, "Keep it"))));
  const remove = el("button", { class: "button small", type: "button", "aria-label": `Remove ${key.name}`,
    onclick: () => { sure.hidden = false; sure.querySelector("button:last-of-type").focus(); } }, "Remove");
  return el("li", { class: "key" }, icon(kind(key)), el("div", {},
    el("h3", {}, key.name),
    el("p", { class: "tags" },
      el("span", { class: "tag" }, key.device_bound ? "bound to its device" : key.backed_up ? "synced" : "can be synced"),
      key.opened_this_session ? el("span", { class: "tag good" }, "used to log in now") : null),
    el("p", { class: "fine" }, "Added ", el("time", { datetime: key.added, title: at(key.added) }, ago(key.added)), ", ",
      key.last_used ? ["last used ", el("time", { datetime: key.last_used, title: at(key.last_used) }, ago(key.last_used))] : "not used yet", "."),
    form, sure), el("div", { class: "buttons" }, rename, remove));
}

async function take(key) {
  try {
    await call("DELETE", `/v1/me/authenticators/${key.id}`);
    if (key.opened_this_session) { location.assign("/login"); return; }
    await show();
    say("good", `“${key.name}” is removed.`);
    document.querySelector("h1").focus();
  } catch (error) { failed(error); }
}

async function show() {
  const keys = await call("GET", "/v1/me/authenticators");
  $("keys").replaceChildren(keys.length ? el("ul", {}, keys.map((key) => line(key, keys.length === 1)))
    : el("p", {}, "None yet. Without one you can look, but not approve."));
}

async function add() {
  hush();
  try {
    const begun = await call("POST", "/v1/me/authenticators/options", {});
    const credential = await create(begun.public_key);
    const made = await call("POST", "/v1/me/authenticators", { credential, name: $("name").value });
    $("name").value = "";
    await show();
    say("good", `“${made.name}” is registered.`, "You can log in and approve with it now.");
  } catch (error) { failed(error); }
}

async function start() {
  me = await enter();
  $("add").addEventListener("submit", (event) => {
    event.preventDefault();
    once(event.target.querySelector("button"), "Waiting for your device…", add);
  });
  const row = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  $("me").append(row("Name", me.name), row("Id", me.id), row("Groups", me.groups.join(", ") || "none"),
    row("Logged in with", me.method === "passkey" ? "a passkey" : "the issuer"),
    ...(me.aliases.length ? [row("Also known as", me.aliases.join(", "))] : []));
  await show();
}

start().catch(failed);
