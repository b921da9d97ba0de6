// The way in: a passkey, or the issuer.

import { call } from "./api.js";
import { $, hush, once, say } from "./dom.js";
import { theme } from "./page.js";
import { get, supported, words } from "./passkey.js";

const PROBLEMS = {
  expired: "That login took too long, or was done already. Try again.",
  declined: "The issuer did not let you in.",
  stronger: "The issuer could not authenticate you as strongly as is needed here.",
  issuer: "The login at the issuer did not work. The server's log says why.",
  removed: "This person has no access any more.",
};
const asked = new URLSearchParams(location.search);
const onward = /^\/approvals(\/[A-Za-z0-9_-]+)*$/.test(asked.get("onward") ?? "") ? asked.get("onward") : "/approvals";

export async function passkeyLogin() {
  const begun = await call("POST", "/v1/login/passkey/options", {}, { open: true });
  const credential = await get(begun.public_key);
  await call("POST", "/v1/login/passkey", { credential }, { open: true });
  location.assign(onward);
}

async function start() {
  theme();
  const problem = asked.get("problem");
  if (problem) say("bad", PROBLEMS[problem] ?? "That login did not work.");
  else if (asked.get("fresh")) say("info", "Please log in again.", "To change authenticators your login must be less than five minutes old.");
  else if (asked.get("onward")) say("info", "Your session has ended. Log in to go on.");
  if (!supported()) say("bad", "This browser cannot use passkeys on this address.", "Passkeys need https, or localhost.");
  $("passkey").addEventListener("click", () => once($("passkey"), "Waiting for your passkey…", async () => {
    hush();
    try { await passkeyLogin(); } catch (error) { say("bad", words(error)); }
  }));
  try {
    const ways = await call("GET", "/v1/login", undefined, { open: true });
    if (ways.issuer) {
      $("oidc").textContent = `Log in at ${ways.issuer}`;
      $("oidc").href = `/v1/login/oidc?onward=${encodeURIComponent(onward)}${asked.get("fresh") ? "&fresh=true" : ""}`;
      $("issuer").hidden = false;
    }
  } catch (error) { say("bad", error.message); }
}

start();
