// The table beside the map: what was searched for, fenced in or filtered, in the order one likes.

import { bus } from "./bus.js";
import { make, makeButton, makePicture, plural, setChildren, setText, showPicture } from "./dom.js";
import { notes, showName } from "./notes.js";

export const STEP = 40;
const NONE = new Map();

export class LatentsTable {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.all = tab.all;
    this.list = {
      kept: new Uint8Array(0),
      fenced: null,
      found: null,
      scores: null,
      order: [],
      ...tab.all.usualOrder,
      shown: 40,
      unknown: [],
    };
    this.tableHead = this.panel.find(".pl-table thead tr");
    this.tableBody = this.panel.find(".pl-table tbody");
    this.filters = Object.fromEntries(this.panel.findAll("[data-filter]").map((box) => [box.dataset.filter, box]));
    this.tableRows = [];
    this.headCells = new Map();
    this.listen();
  }

  listen() {
    bus.on("icons", () => this.showRowIcons());
    this.panel.find(".pl-drop-lasso").addEventListener("click", () => this.dropFence());
    this.panel.find(".pl-more").addEventListener("click", () => {
      this.list.shown += 3 * STEP;
      this.fillTable();
    });
  }

  layHead() {
    const { found: latents, by, down } = this.list;
    const shown = this.all.columns.filter(({ name: key }) =>
      key === "score" ? latents : key === "name" || this.all.figures[key],
    );
    const cells = shown.map((column) => {
      const cell = this.headCells.get(column.name) || this.makeHeadCell(column);
      const way = down ? "descending" : "ascending";
      cell.setAttribute("aria-sort", by === column.name ? way : "none");
      return cell;
    });
    setChildren(this.tableHead, cells);
  }

  makeHeadCell({ name: key, column, explanation }) {
    const cell = make("th");
    cell.scope = "col";
    const sort = makeButton("pl-sort", column, () => this.sortBy(key));
    sort.title = explanation;
    cell.append(sort);
    this.headCells.set(key, cell);
    return cell;
  }

  sortBy(key) {
    const rising = key === "name" || this.all.columns.find((one) => one.name === key).rising;
    this.list.down = this.list.by === key ? !this.list.down : !rising;
    this.list.by = key;
    this.fillTable();
    this.tab.writeLink();
  }

  // Which concepts pass the filters, and of these which are listed.
  filterAll() {
    if (this.list.kept.length !== this.all.n) this.list.kept = new Uint8Array(this.all.n);
    const here = this.filters.here.checked && bus.picture ? new Set(bus.picture.code.ids) : null;
    for (let i = 0; i < this.all.n; i++) {
      this.list.kept[i] = !(
        (this.filters.named.checked && !this.all.names[i] && !notes.name(i)) ||
        (this.filters.pinned.checked && !notes.isPinned(i)) ||
        (this.filters.alive.checked && this.all.dead[i]) ||
        (this.filters.selective.checked && this.all.dense[i]) ||
        (here && !here.has(i))
      )
        ? 1
        : 0;
    }
  }

  fillTable() {
    const pool = this.list.found || (this.list.fenced ? [...this.list.fenced] : null);
    let chosen = [];
    const { fenced, kept } = this.list;
    if (pool) chosen = pool.filter((latent) => kept[latent] && (!fenced || fenced.has(latent)));
    else for (let i = 0; i < this.all.n; i++) if (kept[i]) chosen.push(i);
    if (this.list.by !== "score" || !this.list.found) this.sortLatents(chosen);
    else if (!this.list.down) chosen.reverse();
    if (!this.list.found) chosen = notes.pinnedFirst(chosen);
    this.list.order = chosen;
    this.layHead();
    const n = Math.min(chosen.length, this.list.shown);
    for (let i = 0; i < n; i++) this.fillTableRow(this.tableRows[i] || this.makeTableRow(), chosen[i]);
    for (let i = n; i < this.tableRows.length; i++) this.tableRows[i].row.hidden = true;
    if (n && !this.tableRows.slice(0, n).some(({ row }) => row.tabIndex === 0)) this.tableRows[0].row.tabIndex = 0;
    const more = this.panel.find(".pl-more");
    const empty = this.panel.find(".pl-empty");
    more.hidden = chosen.length <= n;
    setText(more, `Show more of ${chosen.length.toLocaleString("en")}`);
    empty.hidden = n > 0;
    setText(empty, n ? "" : this.whyEmpty());
    this.sayWhat(chosen.length);
    bus.askIcons(this.tab, chosen.slice(0, n));
    this.showRowIcons();
  }

  whyEmpty() {
    const { found: latents, unknown } = this.list;
    if (latents && latents.length) return "The filters leave out all that was found. Take one away.";
    if (!latents) return "No concept fits. Take away a filter, or drop the lasso.";
    const words = unknown.map((word) => `“${word}”`).join(", ");
    const why = words ? `This model does not know ${words}, and no concept is called so.` : "No concept is called so.";
    return `${why} Try ${this.all.examples().join(" or ")}.`;
  }

  sortLatents(chosen) {
    const sign = this.list.down ? -1 : 1;
    const by = this.list.by === "score" ? this.all.usualOrder.by : this.list.by;
    if (by === "name") {
      chosen.sort(
        (a, b) =>
          sign * (this.all.names[a] === "") - sign * (this.all.names[b] === "") ||
          sign * this.all.word(a).localeCompare(this.all.word(b)) ||
          a - b,
      );
    } else {
      const values = this.all.figures[by].values;
      const worst = this.list.down ? -Infinity : Infinity;
      const key = (latent) => (Number.isFinite(values[latent]) ? values[latent] : worst);
      chosen.sort((a, b) => sign * (key(a) - key(b)) || a - b);
    }
  }

  sayWhat(count) {
    const { found: latents, fenced } = this.list;
    setText(this.panel.find(".pl-title"), latents ? "Found" : fenced ? "Inside the lasso" : "All concepts");
    setText(
      this.panel.find(".pl-subtitle"),
      plural(count.toLocaleString("en"), "concept", "concepts").replace(/^1 concepts/, "1 concept") +
        (latents && this.list.how ? ` · ${this.list.how}` : "") +
        (latents && this.list.unknown.length ? ` · this model does not know “${this.list.unknown.join("”, “")}”` : ""),
    );
    const drop = this.panel.find(".pl-drop-lasso");
    drop.hidden = !fenced;
    setText(drop, fenced ? `Lasso: ${this.nKept(fenced).toLocaleString("en")} ×` : "");
  }

  makeTableRow() {
    const row = make("tr", "pl-table-row");
    const one = { row, latent: -1 };
    row.tabIndex = this.tableRows.length ? -1 : 0;
    row.addEventListener("click", () => bus.card.open(one.latent, row));
    row.addEventListener("pointerenter", () => {
      this.tab.map.ringAt(one.latent);
      bus.card.prefetch(one.latent);
    });
    row.addEventListener("pointerleave", () => {
      this.tab.map.ringAt(-1);
      bus.card.prefetch(null);
    });
    row.addEventListener("focus", () => {
      for (const other of this.tableRows) other.row.tabIndex = other === one ? 0 : -1;
      this.tab.map.ringAt(one.latent);
    });
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        bus.card.open(one.latent, row);
      }
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const next = step && this.tableRows[this.tableRows.indexOf(one) + step];
      if (!step) return;
      event.preventDefault();
      if (next && !next.row.hidden) next.row.focus();
      else if (step < 0) this.panel.find(".pl-search input").focus();
    });
    this.tableBody.append(row);
    this.tableRows.push(one);
    return one;
  }

  fillTableRow(one, latent) {
    one.latent = latent;
    const { row } = one;
    const name = make("th", "pl-cell-name");
    const icon = makePicture("pl-mini");
    const words = make("span", this.all.names[latent] || notes.name(latent) ? "" : "pl-soft");
    showName(words, latent, this.all.names[latent]);
    name.scope = "row";
    one.icon = icon;
    name.append(icon, words);
    if (this.all.names[latent] || notes.name(latent)) name.append(make("small", "pl-number", `#${latent}`));
    row.replaceChildren(name);
    row.hidden = false;
    for (const { name: key } of this.all.columns.slice(1)) {
      if (key === "score" ? !this.list.found : !this.all.figures[key]) continue;
      const value = key === "score" ? (this.list.scores || NONE).get(latent) : this.all.figure(key, latent);
      row.append(
        make("td", "", key === "score" ? (value === undefined ? "name" : value.toFixed(2)) : this.all.text(key, value)),
      );
    }
  }

  showRowIcons() {
    for (const { row, icon, latent } of this.tableRows) {
      if (!row.hidden) showPicture(icon, bus.icons.get(latent));
    }
  }

  // List what is inside a lasso; with none, or nothing inside, there is none.
  takeFence(fence) {
    this.fence(fence);
    const { fenced } = this.list;
    this.tab.writeLink();
    if (fenced) this.panel.say(`${plural(this.nKept(fenced), "concept", "concepts")} inside the lasso`);
  }

  nKept(latents) {
    return [...latents].filter((latent) => this.list.kept[latent]).length;
  }

  fence(fence) {
    const inside = new Set();
    this.tab.map.atlas.fence = fence;
    const n = fence && fence.length > 2 ? this.all.n : 0;
    for (let i = 0; i < n; i++) {
      if (this.tab.map.insideFence(i)) inside.add(i);
    }
    this.list.fenced = this.nKept(inside) ? inside : null;
    if (!this.list.fenced) this.tab.map.atlas.fence = null;
    this.list.shown = STEP;
    this.fillTable();
    this.tab.map.drawLit();
  }

  dropFence() {
    this.takeFence(null);
  }

  // The filters that are on, as a link says them; nothing where they are as the page opens with.
  shownText() {
    const boxes = Object.values(this.filters);
    if (boxes.every((box) => box.checked === box.defaultChecked)) return null;
    const on = boxes.filter((box) => box.checked).map((box) => box.dataset.filter);
    return on.join(",") || "all";
  }

  // The filters that such a text names; false if it names others.
  readShown(text) {
    const on = text === "all" ? [] : text === null ? null : text.split(",");
    for (const [name, box] of Object.entries(this.filters)) box.checked = on ? on.includes(name) : box.defaultChecked;
    return !on || on.every((name) => Object.hasOwn(this.filters, name));
  }
}
