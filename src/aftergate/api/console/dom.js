// Elements from plain text. Nothing here takes markup: what others wrote stays text.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Strings among the children are text; null and false are left out. */
export function el(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function svg(tag, about, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(about)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

const PATHS = {
  back: ["M15 5l-7 7 7 7"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  key: ["M14.5 9.5a5 5 0 1 0-4.2 4.9L12 16h2.5v2.5H17V21h4v-3.5l-6.8-6.8c.2-.4.3-.8.3-1.2z", "M8.5 8.6v.01"],
  phone: ["M8 3h8a1.5 1.5 0 0 1 1.5 1.5v15A1.5 1.5 0 0 1 16 21H8a1.5 1.5 0 0 1-1.5-1.5v-15A1.5 1.5 0 0 1 8 3z", "M11 18h2"],
  laptop: ["M5 5.5h14v10H5z", "M2.5 19h19"],
  warn: ["M12 4l9 16H3z", "M12 10v4.5", "M12 17.3v.01"],
  info: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z", "M12 11v5.5", "M12 7.6v.01"],
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, ...PATHS[name].map((d) => svg("path", { d })));
}

const BANDS = ["low", "medium", "high", "critical"];

/** A risk band or severity: the word, and as many bars. */
export function band(word, more = "") {
  const level = BANDS.indexOf(word) + 1;
  const bars = svg("svg", { viewBox: "0 0 14 11", class: "bars", "aria-hidden": "true" });
  for (let i = 0; i < 4; i += 1) {
    bars.append(svg("rect", { x: i * 3.7, y: 8 - i * 2.6, width: 2.6, height: 3 + i * 2.6, rx: 0.6, class: i < level ? "on" : "off" }));
  }
  return el("span", { class: `tag ${BANDS.includes(word) ? word : ""}` }, level ? bars : null, more ? `${word} ${more}` : word);
}

/** A bar that is `share` (0 to 1) full; decoration beside a text that says the same. */
export function meter() {
  const full = svg("rect", { class: "full", x: 0, y: 0, width: 100, height: 6 });
  const made = svg("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "bed", x: 0, y: 0, width: 100, height: 6 }), full);
  return { node: made, set: (share, soon) => {
    full.setAttribute("width", String(Math.max(0, Math.min(1, share)) * 100));
    made.classList.toggle("soon", soon);
  } };
}

export const $ = (id) => document.getElementById(id);

/** A message above the content; read out at once if something went wrong. */
export function say(kind, text, more = "", ...actions) {
  const box = el("div", { class: `say ${kind}`, role: kind === "bad" ? "alert" : "status" },
    icon(kind === "good" ? "check" : kind === "bad" ? "warn" : "info"),
    el("div", {}, el("p", {}, text), more ? el("p", { class: "fine" }, more) : null, actions.length ? el("div", { class: "buttons" }, actions) : null));
  $("messages").replaceChildren(box);
  return box;
}

export const hush = () => $("messages").replaceChildren();

/** Told to screen readers without moving anything. */
export function tell(text) {
  $("told").textContent = text;
}

/** Keep a button from being pressed twice; it stays where the keyboard is. */
export async function once(button, words, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const before = button.textContent;
  button.setAttribute("aria-disabled", "true");
  button.textContent = words;
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
    button.textContent = before;
  }
}
