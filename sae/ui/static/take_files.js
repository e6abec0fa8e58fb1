// Files that are taken away: texts of tables, what files are called, and the download itself.

import { make } from "./dom.js";

const MARK = "\uFEFF"; // without it, spreadsheets take UTF-8 for another encoding
const FORMULA = /^\s*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]|^[\t\r\n]/;

// A text that a spreadsheet would run gets an apostrophe in front: it is shown, and not computed.
function cell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value !== "string") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// Rows of objects as CSV (RFC 4180), in the columns' order.
export const csvOf = (columns, rows) =>
  MARK + [columns, ...rows.map((row) => columns.map((key) => row[key]))].map((row) => `${row.map(cell)}\r\n`).join("");

export const jsonOf = (content) => `${JSON.stringify(content, null, 2)}\n`;

// Six digits: what is shown was rounded before.
export const rounded = (value) => (Number.isFinite(value) ? Number(value.toPrecision(6)) : null);

const two = (number) => String(number).padStart(2, "0");

// The shortest number that is the same in 32 bits, in which an index keeps its figures.
export const exact = (value) => (Number.isFinite(value) ? Number(value.toPrecision(9)) : null);

export function today() {
  const now = new Date();
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}

const slug = (text) =>
  String(text)
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .slice(0, 40)
    .replace(/^-|-$/g, "");

// patchlens-PARTS.ending, in letters that every system takes.
export const fileName = (ending, ...parts) =>
  `${["patchlens", ...parts].map(slug).filter(Boolean).join("-")}.${ending}`;

const TYPES = { csv: "text/csv", json: "application/json", png: "image/png", py: "text/x-python" };

export function download(name, content) {
  const type = TYPES[name.split(".").pop()];
  const link = make("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 30000);
  return name;
}
