// A picture by what links call it, `ex:tiger`, `sc:…`, `ix:17` or `own:…`, as the server is asked for it.

import { exampleOf } from "./links.js";
import { own } from "./own_pictures.js";

export const ownLink = (id) => `own:${id}`;

// The id of the own picture that a link names, or "".
export function ownOf(link) {
  const match = /^own:([a-z0-9]{1,20})$/.exec(link || "");
  return match ? match[1] : "";
}

// How to ask for it; null where it names no picture that is here. Throws where it could not be sent.
export async function requestOf(link) {
  if (ownOf(link)) return own.requestFor(ownOf(link));
  if (String(link).startsWith("sc:")) return { kind: "code", data: link };
  const exemplar = /^ix:(\d{1,9})$/.exec(link || "");
  if (exemplar) return { kind: "exemplar", data: Number(exemplar[1]) };
  return exampleOf(link) ? { kind: "example", data: exampleOf(link) } : null;
}
