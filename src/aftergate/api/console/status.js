// How a request stands, in a word.

import { el } from "./dom.js";

export const STATUS = {
  approved: ["good", "approved"], consumed: ["good", "approved and used"], denied: ["bad", "denied"], expired: ["", "ran out"], cancelled: ["", "withdrawn"],
  failed: ["bad", "too many failed tries"], voided: ["bad", "void"], partial: ["good", "approved in part"], pending: ["", "waiting"],
};

export const status = (word) => el("span", { class: `tag ${STATUS[word]?.[0] ?? ""}` }, STATUS[word]?.[1] ?? word);
