// The experiment as a PNG that carries what was asked, and back. Knows the PNG format's chunks.

import { colour, shareText } from "./dom.js";

const KEYWORD = "patchlens";
const KEY = ["as it is", "changed", "random change of the same size"];

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// A copy of a PNG with an uncompressed iTXt chunk behind its header.
function withSaved(png, text) {
  const body = new TextEncoder().encode(`iTXt${KEYWORD}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(body.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view.setUint32(body.length + 4, crc32(body));
  const out = new Uint8Array(png.length + chunk.length);
  out.set(png.subarray(0, 33));
  out.set(chunk, 33);
  out.set(png.subarray(33), 33 + chunk.length);
  return out;
}

export function savedIn(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  if (png.length < 45 || view.getUint32(0) !== 0x89504e47) return null;
  for (let at = 8; at + 12 <= png.length;) {
    const size = view.getUint32(at);
    const kind = String.fromCharCode(...png.subarray(at + 4, at + 8));
    if (at + 12 + size > png.length) return null;
    if (kind === "iTXt" && size < 20000) {
      const text = new TextDecoder().decode(png.subarray(at + 8, at + 8 + size));
      if (text.startsWith(`${KEYWORD}\0`)) return text.slice(KEYWORD.length + 5);
    }
    at += 12 + size;
  }
  return null;
}

function wrapText(context, text, left, top, width, lineHeight) {
  let line = "";
  for (const word of text.split(" ")) {
    if (line && context.measureText(`${line} ${word}`).width > width) {
      context.fillText(line, left, top);
      top += lineHeight;
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  context.fillText(line, left, top);
  return top + lineHeight;
}

// Classes with their bars from `y` on: as it is, edited, and the control.
function drawBars(context, bars, y) {
  const inks = [colour("print-soft"), colour("first"), colour("second")];
  const most = bars.some(({ shares }) => shares[2] !== null) ? KEY.length : 1;
  KEY.slice(0, bars.length ? most : 0).forEach((text, i) => {
    context.font = "15px system-ui, sans-serif";
    context.fillStyle = inks[i];
    context.fillRect(450 + 190 * i, y - 22, 16, 9);
    context.fillText(text, 474 + 190 * i, y - 13);
  });
  for (const { name, shares } of bars.slice(0, 8)) {
    context.font = "20px system-ui, sans-serif";
    context.fillStyle = colour("print-ink");
    context.fillText(name.slice(0, 26), 450, y + 22, 240);
    shares.forEach((share, i) => {
      if (share === null) return;
      context.fillStyle = inks[i];
      context.fillRect(700, y + 12 * i, Math.max(2, 340 * share), 9);
    });
    context.fillStyle = colour("print-ink");
    context.fillText(shares.slice(0, 2).map(shareText).join(" → "), 1054, y + 22, 130);
    y += 58;
  }
}

// A picture of 1200 × 630 for sharing: the photo, what was turned, and the texts or classes.
export async function experimentPng(saved, { photo, title, edits, texts = [], bars = [] }) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  canvas.width = 1200;
  canvas.height = 630;
  context.fillStyle = colour("print-page");
  context.fillRect(0, 0, 1200, 630);
  const side = 360;
  const scale = Math.min(side / photo.naturalWidth, side / photo.naturalHeight);
  context.imageSmoothingEnabled = photo.naturalWidth > 200;
  context.drawImage(photo, 40, 90, photo.naturalWidth * scale, photo.naturalHeight * scale);
  context.fillStyle = colour("print-ink");
  context.font = "600 30px system-ui, sans-serif";
  context.fillText(`PatchLens: ${title.slice(0, 50)}`, 40, 56);
  context.font = "20px system-ui, sans-serif";
  edits.slice(0, 4).forEach((line, i) => context.fillText(line, 40, 490 + 30 * i));
  let y = 112;
  for (const [name, text] of texts) {
    if (!text) continue;
    context.font = "600 20px system-ui, sans-serif";
    context.fillStyle = colour("print-soft");
    context.fillText(name, 450, y);
    context.font = "24px system-ui, sans-serif";
    context.fillStyle = colour("print-ink");
    y = wrapText(context, text.slice(0, 400), 450, y + 34, 700, 32) + 26;
  }
  drawBars(context, bars, y);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return withSaved(new Uint8Array(await blob.arrayBuffer()), JSON.stringify(saved));
}
