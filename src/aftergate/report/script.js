"use strict";
(() => {
  const one = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const root = document.documentElement;

  // Theme: the system's until the reader chooses; a browser may refuse to remember for a file.
  const remember = (value) => { try { localStorage.setItem("aftergate-theme", value); } catch { /* not kept */ } };
  try { const kept = localStorage.getItem("aftergate-theme"); if (kept === "light" || kept === "dark") root.dataset.theme = kept; } catch { /* none kept */ }
  const theme = one("#theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
  });

  // Filter
  const incidents = all(".incident");
  const filter = one("#filter");
  if (filter) {
    filter.hidden = false;
    const picks = all(".pick", filter), detection = one("#by-detection"), text = one("#by-text"), shown = one("#shown"), none = one("#none");
    const words = new Map();
    const holds = (incident, wanted) => {
      if (!words.has(incident)) words.set(incident, incident.textContent.toLowerCase());
      return wanted.every((word) => words.get(incident).includes(word));
    };
    const apply = () => {
      const off = new Set(picks.filter((p) => p.getAttribute("aria-pressed") === "false").map((p) => p.dataset.severity));
      const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const incident of incidents) {
        const fits = !off.has(incident.dataset.severity) && (!detection.value || incident.dataset.detections.split(" ").includes(detection.value)) && holds(incident, wanted);
        incident.hidden = !fits;
        count += fits;
      }
      shown.textContent = `${count} of ${incidents.length} shown`;
      none.hidden = count > 0;
    };
    for (const pick of picks) pick.addEventListener("click", () => { pick.setAttribute("aria-pressed", String(pick.getAttribute("aria-pressed") === "false")); apply(); });
    detection.addEventListener("change", apply);
    let waiting = 0;
    text.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
    for (const link of all("a.by")) link.addEventListener("click", () => { detection.value = link.dataset.detection; apply(); });
    const toggle = one("#toggle-all");
    toggle.addEventListener("click", () => {
      const open = toggle.textContent === "Open all";
      for (const incident of incidents) if (!incident.hidden) incident.open = open;
      toggle.textContent = open ? "Close all" : "Open all";
    });
    apply();
  }

  // An incident named in the address is opened.
  const follow = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const found = id && document.getElementById(id);
    if (found && found.tagName === "DETAILS") { found.open = true; found.scrollIntoView(); }
  };
  addEventListener("hashchange", follow);
  follow();

  // A picture wider than the screen begins where the findings are.
  const aim = (incident) => {
    const box = one(".scroll", incident), pin = one(".pin", incident);
    if (!incident.open || !box || !pin || box.scrollWidth <= box.clientWidth + 4) return;
    box.scrollLeft += pin.getBoundingClientRect().left - box.getBoundingClientRect().left - box.clientWidth * 0.6;
  };
  for (const incident of incidents) { incident.addEventListener("toggle", () => aim(incident)); aim(incident); }
  // ... and the names of its lanes stay in sight.
  for (const box of all(".scroll")) {
    const names = all("text.lane", box), picture = one("svg", box);
    box.addEventListener("scroll", () => { for (const name of names) name.setAttribute("x", 8 + box.scrollLeft * 960 / picture.clientWidth); }, { passive: true });
  }

  // Printing shows everything that is not filtered away.
  let closed = [];
  addEventListener("beforeprint", () => { closed = all("details.incident:not([open]), #coverage details:not([open])").filter((d) => !d.hidden); for (const d of closed) d.open = true; });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });

  // What a mark says, on hover and on focus; arrow keys walk the marks of a picture in order of time.
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const show = (mark) => {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, at.left + at.width / 2 - own.width / 2))}px`;
    tip.style.top = `${at.top - own.height - 8 > 0 ? at.top - own.height - 8 : at.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const picture of all("svg.life")) {
    const marks = all(".m[role=img], .pin", picture);
    for (const mark of marks) { // the tip takes the place of the title; a label stays for screen readers
      const title = one("title", mark);
      if (title) { mark.setAttribute("aria-label", title.textContent); title.remove(); }
    }
    picture.addEventListener("pointerover", (e) => { const mark = e.target.closest(".m[role=img], .pin"); if (mark) show(mark); });
    picture.addEventListener("pointerout", hide);
    picture.addEventListener("focusin", (e) => { if (e.target !== picture) show(e.target); });
    picture.addEventListener("focusout", hide);
    let ordered = null;
    picture.addEventListener("keydown", (e) => {
      if (e.key === "Escape") { hide(); return; }
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!step) return;
      e.preventDefault();
      ordered ??= marks.map((m) => [m.getBBox().x, m]).sort((a, b) => a[0] - b[0]).map((p) => p[1]);
      const now = ordered.indexOf(document.activeElement);
      const next = ordered[now < 0 ? (step > 0 ? 0 : ordered.length - 1) : Math.max(0, Math.min(ordered.length - 1, now + step))];
      if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest", inline: "nearest" }); show(next); }
    });
  }
  addEventListener("scroll", hide, { passive: true });
})();
