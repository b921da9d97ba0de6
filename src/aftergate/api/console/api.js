// The server's own routes, same origin, with the session cookie that no script can read.

export class Problem extends Error {
  constructor(status, body) {
    super(body.title || `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "";
    this.reason = body.reason ?? "";
  }
}

/** Called when the session is over: go to the login page, and come back here. */
export function loginAgain() {
  const here = location.pathname.startsWith("/approvals") ? location.pathname : "/approvals";
  location.assign(`/login?onward=${encodeURIComponent(here)}`);
}

/** One request. `background` marks what the page does by itself: it keeps no session alive. */
export async function call(method, path, body = undefined, { background = false, open = false } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (background) headers["x-aftergate-background"] = "1";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin", cache: "no-store", redirect: "error" });
  } catch {
    throw new Problem(0, { title: "The server does not answer. Check the connection and try again." });
  }
  let held = {};
  if (answer.status !== 204) {
    try { held = await answer.json(); } catch { held = {}; }
  }
  if (answer.ok) return held;
  const problem = new Problem(answer.status, held);
  if (answer.status === 401 && !open && problem.code !== "login-again") {
    loginAgain();
    await new Promise(() => {}); // this page is on its way out: nothing that waits here goes on
  }
  throw problem;
}
