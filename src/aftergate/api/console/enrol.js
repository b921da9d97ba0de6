// A one-time link: its secret is behind `#`, so no server and no log saw it.

import { call } from "./api.js";
import { $, hush, once, say, tell } from "./dom.js";
import { theme } from "./page.js";
import { create, get, supported, words } from "./passkey.js";

const secret = decodeURIComponent(location.hash.slice(1));

async function register() {
  hush();
  try {
    const begun = await call("POST", "/v1/enrol/options", { secret }, { open: true });
    const credential = await create(begun.public_key);
    await call("POST", "/v1/enrol", { secret, credential, name: $("name").value }, { open: true });
  } catch (error) {
    say("bad", words(error));
    return;
  }
  history.replaceState(null, "", location.pathname);
  $("ready").hidden = true;
  $("done").hidden = false;
  tell("Your passkey is registered.");
  $("enter").focus();
}

async function logIn() {
  hush();
  try {
    const begun = await call("POST", "/v1/login/passkey/options", {}, { open: true });
    const credential = await get(begun.public_key);
    await call("POST", "/v1/login/passkey", { credential }, { open: true });
    location.assign("/approvals");
  } catch (error) { say("bad", words(error)); }
}

async function start() {
  theme();
  addEventListener("hashchange", () => location.reload()); // another link, pasted into the same window
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    once(event.submitter ?? event.target.querySelector("button"), "Waiting for your device…", register);
  });
  $("enter").addEventListener("click", () => once($("enter"), "Waiting for your passkey…", logIn));
  if (!supported()) { say("bad", "This browser cannot use passkeys on this address.", "Passkeys need https, or localhost."); return; }
  if (!secret) { say("bad", "This is not a whole link.", "Open it exactly as you were given it, to its last character."); return; }
  try {
    const begun = await call("POST", "/v1/enrol/options", { secret }, { open: true });
    $("person").textContent = begun.name === begun.person ? begun.name : `${begun.name} (${begun.person})`;
    $("ready").hidden = false;
  } catch (error) { say("bad", error.message); }
}

start();
