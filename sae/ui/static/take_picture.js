// Pictures that are taken away: what is drawn on the screen, with lines below that say what it is.

import { colour } from "./dom.js";
import { today } from "./take_files.js";

const EDGE = 16;
const LINE = 24;
const LEAST = 640;

// Which models, and when: the last line below every picture.
export const modelLine = (about) =>
  `PatchLens · ${about.backbone}, layer ${about.layer + 1} · SAE ${about.sae}, ${about.d_sae} concepts · ${today()}`;

// The words of a line, in as many lines as it takes.
function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (lines[lines.length - 1] && context.measureText(longer).width > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}

const fontOf = (line) => `${line ? "" : "600 "}15px system-ui, sans-serif`;

// A sheet as wide as what is drawn on it; `draw` gets its canvas, left and upper edge.
async function sheet(width, height, captions, draw) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const lines = captions.flatMap((text, line) => {
    context.font = fontOf(line);
    return wrapped(context, text.slice(0, 400), width).map((part) => [part, line]);
  });
  canvas.width = width + 2 * EDGE;
  canvas.height = height + 3 * EDGE + LINE * lines.length;
  context.fillStyle = colour("sheet");
  context.fillRect(0, 0, canvas.width, canvas.height);
  draw(context, EDGE, EDGE);
  lines.forEach(([text, line], row) => {
    context.font = fontOf(line);
    context.fillStyle = colour(line ? "soft" : "ink");
    context.fillText(text, EDGE, height + 2 * EDGE + LINE * (row + 0.6));
  });
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// Layers of one picture, the lowest first: an image and canvases that lie over the whole of it.
export function picturePng(layers, captions) {
  const [photo] = layers;
  const ratio = photo.naturalHeight / photo.naturalWidth;
  const width = Math.max(LEAST, photo.naturalWidth, ...layers.slice(1).map((layer) => layer.width));
  const height = Math.round(width * ratio);
  return sheet(width, height, captions, (context, left, upper) => {
    for (const layer of layers) {
      if (layer.naturalWidth || (layer.width && layer.height)) context.drawImage(layer, left, upper, width, height);
    }
  });
}

// What stands in an element now: its canvases and its texts, where they are.
export function planePng(plane, captions) {
  const area = plane.getBoundingClientRect();
  const scale = Math.max(devicePixelRatio, 2);
  const place = (box) => [box.left - area.left, box.top - area.top, box.width, box.height].map((side) => side * scale);
  return sheet(Math.round(area.width * scale), Math.round(area.height * scale), captions, (context, left, upper) => {
    context.translate(left, upper);
    for (const layer of plane.querySelectorAll("img, canvas")) {
      const there = (layer.naturalWidth || layer.width) && layer.height && layer.checkVisibility();
      if (there) context.drawImage(layer, ...place(layer.getBoundingClientRect()));
    }
    for (const node of plane.querySelectorAll("*")) {
      const text = node.children.length ? "" : node.textContent.trim();
      if (text && node.tagName !== "CANVAS" && node.checkVisibility()) drawText(context, node, text, place, scale);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
  });
}

function drawText(context, node, text, place, scale) {
  const [left, top, width, height] = place(node.getBoundingClientRect());
  const style = getComputedStyle(node);
  const upright = style.writingMode.startsWith("vertical") || height > 2 * width;
  context.save();
  context.font = `${style.fontWeight} ${Number.parseFloat(style.fontSize) * scale}px system-ui, sans-serif`;
  context.fillStyle = style.color;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.translate(left + width / 2, top + height / 2);
  if (upright) context.rotate(-Math.PI / 2);
  context.fillText(text, 0, 0, upright ? height : undefined);
  context.restore();
}
