// Before the first paint: the theme that was chosen, else the system's.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try { return localStorage.getItem("aftergate-theme"); } catch { return null; }
  };
  const set = () => {
    document.documentElement.dataset.theme = chosen() ?? (dark.matches ? "dark" : "light");
  };
  set();
  dark.addEventListener("change", set);
})();
