// What every page behind the login has: who is here, the theme, the way out, and a warning before the session ends.

import { call, loginAgain } from "./api.js";
import { $, el } from "./dom.js";
import { span } from "./time.js";

const WARN_S = 60;
const TOUCH_MS = 60_000;

export function theme() {
  const button = $("theme");
  const root = document.documentElement;
  const name = () => button.setAttribute("aria-label", root.dataset.theme === "dark" ? "Switch to the light theme" : "Switch to the dark theme");
  const word = () => { button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; name(); };
  button.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("aftergate-theme", root.dataset.theme); } catch { /* a private window: it holds for this page */ }
    word();
  });
  word();
}

/** Ask who is logged in; gives the answer of `/v1/me`. */
export async function enter() {
  theme();
  $("logout").addEventListener("click", async () => {
    try { await call("POST", "/v1/logout"); } finally { location.assign("/login"); }
  });
  const me = await call("GET", "/v1/me");
  $("who").textContent = me.name;
  $("who").title = me.id;
  watch(me);
  return me;
}

/** The session ends after idleness: what the person does here counts, what the page does by itself does not. */
function watch(me) {
  let last = Date.now();
  let touched = Date.now();
  let box = null;
  const touch = async () => {
    touched = Date.now();
    try {
      await call("GET", "/v1/me");
      last = Date.now();
      box?.remove();
      box = null;
    } catch { /* without a session `call` has left this page already */ }
  };
  for (const kind of ["keydown", "pointerdown"]) {
    document.addEventListener(kind, () => {
      if (Date.now() - touched > TOUCH_MS) touch();
    }, { passive: true });
  }
  setInterval(() => {
    const left = Math.min(me.idle_s - (Date.now() - last) / 1000, (Date.parse(me.ends) - Date.now()) / 1000);
    if (left <= -3) { loginAgain(); return; }
    if (left > WARN_S || box !== null) {
      if (box !== null) box.querySelector("[data-left]").textContent = span(left);
      return;
    }
    const stay = Date.parse(me.ends) - Date.now() > WARN_S * 1000;
    box = el("div", { class: "say", role: "alert" }, el("div", {},
      el("p", {}, "For your safety you will be logged out in ", el("span", { "data-left": true, "aria-hidden": "true" }, span(left)), el("span", { class: "unseen" }, "about one minute"), "."),
      stay ? el("div", { class: "buttons" }, el("button", { class: "button small", type: "button", onclick: touch }, "Stay logged in")) : null));
    $("main").prepend(box);
  }, 1000);
}
