// A visitor's own pictures: kept in this browser and nowhere else, so many and so much, the oldest go. The
// server is sent one when it is looked at. Knows IndexedDB and how a file is sent; knows nothing of what is
// on screen. Where a browser keeps nothing, they stay until the page is closed.

import { bus } from "./bus.js";

const STORE = "pictures";
const MOST = 24;
const MOST_BYTES = 96 * 1024 * 1024;
const ID = /^[a-z0-9]{1,20}$/;

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => (byte % 36).toString(36)).join("");
const settled = (request) =>
  new Promise((done, fail) => {
    request.addEventListener("success", () => done(request.result));
    request.addEventListener("error", () => fail(request.error));
    request.addEventListener("blocked", () => fail(new Error("blocked")));
  });

// What this browser has under our name may be of an older page, or damaged.
const isSound = (one) =>
  Boolean(one) &&
  ID.test(one.id) &&
  typeof one.name === "string" &&
  one.file instanceof Blob &&
  /^data:image\/(webp|png|jpeg);/.test(one.thumb);

async function areAlike(one, other) {
  if (one.size !== other.size) return false;
  const [a, b] = (await Promise.all([one.arrayBuffer(), other.arrayBuffer()])).map((raw) => new Uint8Array(raw));
  return a.every((byte, i) => byte === b[i]);
}

class OwnPictures {
  constructor() {
    this.list = []; // { id, name, file, thumb, at }, the newest first
    this.data = new Map(); // of pictures that the server was sent: { path, name }, the same object for all who ask
    this.sending = new Map();
    this.base = null;
    this.gone = ""; // how the server says that it has not a picture any more
    this.ready = this.open();
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.reload();
    });
  }

  // Whether this browser keeps them after the page is closed.
  get isKept() {
    return this.base !== null;
  }

  async open() {
    try {
      const asked = indexedDB.open("patchlens", 1);
      asked.addEventListener("upgradeneeded", () => asked.result.createObjectStore(STORE, { keyPath: "id" }));
      this.base = await settled(asked);
      this.base.addEventListener("versionchange", () => this.base.close());
    } catch {
      return; // a private window, or no storage: see isKept
    }
    await this.reload();
  }

  // What is kept may have changed in another window.
  async reload() {
    const kept = await this.act("readonly", (store) => store.getAll());
    if (!kept) return;
    this.list = kept.filter(isSound).sort((a, b) => b.at - a.at);
    bus.emit("own");
  }

  async act(mode, work) {
    if (!this.base) return null;
    try {
      return await settled(work(this.base.transaction(STORE, mode).objectStore(STORE)));
    } catch {
      return null;
    }
  }

  find(id) {
    return this.list.find((one) => one.id === id);
  }

  idOf(path) {
    return [...this.data].find(([, data]) => data.path === path)?.[0];
  }

  // The id of the same picture if it is there already, else a new one.
  async idFor(file) {
    await this.ready;
    const alike = await Promise.all(this.list.map((one) => areAlike(one.file, file).catch(() => false)));
    const at = alike.indexOf(true);
    return at < 0 ? newId() : this.list[at].id;
  }

  // Keep a picture that the server could read. Returns whether it outlives this page.
  async add(id, file, thumb) {
    if (this.find(id)) return true;
    const one = { id, name: file.name || "picture", file, thumb, at: Date.now() };
    this.list.unshift(one);
    let bytes = 0;
    const stays = this.list.filter(({ file: { size } }, i) => (bytes += size) <= MOST_BYTES && i < MOST);
    const goes = this.list.filter((old) => !stays.includes(old));
    this.list = stays;
    for (const old of goes) this.act("readwrite", (store) => store.delete(old.id));
    bus.emit("own");
    return (await this.act("readwrite", (store) => store.put(one))) !== null;
  }

  async forget(ids) {
    this.list = this.list.filter((one) => !ids.includes(one.id));
    for (const id of ids) this.data.delete(id);
    bus.emit("own");
    await Promise.all(ids.map((id) => this.act("readwrite", (store) => store.delete(id))));
  }

  // How the server is asked for a picture; it is sent first unless this page has sent it. null if there is none.
  async requestFor(id) {
    await this.ready;
    const one = this.find(id);
    if (!this.data.has(id) && !one) return null;
    if (!this.data.has(id)) await this.send(id, one.file);
    return { kind: "upload", data: this.data.get(id) };
  }

  // Send a file, once at a time.
  async send(id, file) {
    if (!this.sending.has(id)) this.sending.set(id, bus.sendFile(file));
    try {
      const path = await this.sending.get(id);
      const data = this.data.get(id) || { path, name: file.name || "picture" };
      this.data.set(id, Object.assign(data, { path }));
      return data;
    } finally {
      this.sending.delete(id);
    }
  }
}

export const own = new OwnPictures();

// Where the server has lost a picture, it is sent again; whether that is worth asking again. Whoever holds
// the request holds the new path too.
export async function mend(request, { problem }) {
  const id = problem === own.gone && request && request.data && own.idOf(request.data.path);
  const one = id && own.find(id);
  if (!one) return false;
  try {
    await own.send(id, one.file);
    return true;
  } catch {
    return false;
  }
}

// A small square of what the server shows of a picture, upright and in colours that every browser knows.
export async function thumbOf(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: 152, height: 152 });
  const side = Math.min(image.naturalWidth, image.naturalHeight);
  const from = [(image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2];
  canvas.getContext("2d").drawImage(image, ...from, side, side, 0, 0, 152, 152);
  return canvas.toDataURL("image/webp", 0.8);
}
