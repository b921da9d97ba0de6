// Times as people read them.

const DAY = 86_400;

/** "8 min 12 s", "2 h 5 min", "3 days". */
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s >= 2 * DAY) return `${Math.floor(s / DAY)} days`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  if (s >= 60) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${s} s`;
}

/** "just now", "5 min ago", "3 h ago", "2 days ago". */
export function ago(iso) {
  const s = (Date.now() - Date.parse(iso)) / 1000;
  if (s < 60) return "just now";
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < DAY) return `${Math.floor(s / 3600)} h ago`;
  return s < 2 * DAY ? "1 day ago" : `${Math.floor(s / DAY)} days ago`;
}

/** The moment in this place's time, with its zone. */
export function at(iso) {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso));
}

export const secondsTo = (iso) => (Date.parse(iso) - Date.now()) / 1000;
