// The Latents tab: opens the data, searches, and keeps map, table and address bar together.

import { bus } from "./bus.js";
import { isTyping, make, Panel, plural, setText } from "./dom.js";
import { HeatMaps } from "./heat.js";
import { AllConcepts } from "./latents_data.js";
import { LatentsMap } from "./latents_map.js";
import { lassoText, readLasso, zoomText } from "./latents_link.js";
import { LatentsTable, STEP } from "./latents_table.js";
import { markLinks, readLatents, restoreWith, writeLatents } from "./links.js";
import { leaveOut } from "./misfits.js";
import { offerLatents } from "./take_latents.js";

const HELP =
  "Point at a dot to see what it is, click it for its card. Drag around dots to list them; the wheel or two " +
  "fingers zoom, and names appear. / jumps to the search.";
const KEYS =
  "Arrow keys go from dot to dot, Enter opens the card, plus and minus zoom, 0 shows all; " +
  "the table beside it lists them.";
const NO_INDEX =
  "This SAE has no concept index yet, so there is no map. Build one: patchlens index --sae DIR --data DIR";
const IDLE_ROUNDS = 4;

export class LatentsTab {
  constructor(component) {
    const { element, props, server } = component;
    Object.assign(this, { props, server });
    this.limits = props.setup.limits;
    markLinks(this.limits);
    this.panel = new Panel(element, server);
    this.all = new AllConcepts(props.setup.statistics);
    this.heat = new HeatMaps(props.setup.colours);
    this.map = new LatentsMap(this);
    this.table = new LatentsTable(this);
    this.field = this.panel.find(".pl-search input");
    offerLatents(this);
    this.searchTurn = 0;
    this.searchWait = 0;
    this.like = null; // what is searched for by likeness: "picture" or "patches"
    this.usualColour = "";
    this.following = false; // whether a link is being read: nothing is written then
  }

  listen() {
    setText(this.panel.find(".pl-keys"), HELP);
    this.field.maxLength = this.limits.search_letters;
    this.field.addEventListener("input", () => this.searchText());
    this.field.addEventListener("keydown", (event) => this.keyInField(event));
    this.panel.find(".pl-like-picture").addEventListener("click", () => this.searchLike(null));
    this.panel.find(".pl-like-region").addEventListener("click", () => this.searchLike(bus.picture.patches()));
    for (const box of Object.values(this.table.filters)) {
      box.addEventListener("change", () => {
        this.refresh();
        this.writeLink();
      });
    }
    this.panel.find(".pl-light").addEventListener("change", () => this.map.drawDots());
    bus.on("picture", () => this.refresh());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || isTyping(event) || !this.panel.isVisible() || bus.card.isOpen()) return;
      event.preventDefault();
      this.field.focus();
    });
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.offerPicture();
    }).observe(this.panel.root);
  }

  keyInField(event) {
    const [first] = this.table.tableRows;
    if (event.key === "ArrowDown" && first && !first.row.hidden) {
      event.preventDefault();
      first.row.focus();
    }
    if (event.key === "Escape") {
      this.field.value = "";
      this.searchText();
    }
  }

  writeLink() {
    const { by, down } = this.table.list;
    const { view, fence, colour, placement } = this.map.atlas;
    if (this.following || !view) return;
    writeLatents(
      {
        text: this.field.value.trim(),
        by,
        down,
        like: this.like,
        map: placement === this.map.places.usual ? null : placement,
        show: this.table.shownText(),
        lasso: this.table.list.fenced && lassoText(fence),
        zoom: zoomText(view),
        colour: colour === this.usualColour ? null : colour || "none",
      },
      this.all.usualOrder,
    );
  }

  // A search begins sorted by fit; whoever sorts it otherwise keeps that order until it ends.
  showFound(latents, scores, how, unknown = []) {
    const { list } = this.table;
    if (latents && !list.found) Object.assign(list, { by: "score", down: true });
    if (!latents && list.by === "score") Object.assign(list, this.all.usualOrder);
    Object.assign(list, { found: latents, scores, how, unknown, shown: STEP });
    this.table.fillTable();
    this.map.drawDots();
    this.writeLink();
  }

  // Names answer at once, in the browser; meaning follows from the server and is merged behind them.
  searchText() {
    this.like = null;
    const text = this.field.value;
    const turn = ++this.searchTurn;
    clearTimeout(this.searchWait);
    performance.clearMarks("patchlens-found");
    if (!text.trim()) {
      this.showFound(null, null, "");
      return;
    }
    const local = [...new Set([...this.all.yours(text), ...this.all.matches(text)])];
    this.showFound(local, null, "by name");
    if (!this.props.setup.by_meaning || /^#?\d+$/.test(text.trim())) return;
    this.searchWait = setTimeout(async () => {
      const answer = await this.panel.ask({ way: "search", text });
      if (turn !== this.searchTurn || !answer) return;
      const scores = new Map(answer.found);
      const names = new Set(local);
      this.showFound(
        [...local, ...answer.found.map(([latent]) => latent).filter((latent) => !names.has(latent))],
        scores,
        answer.found.length ? "by name, then by meaning" : "by name",
        answer.unknown,
      );
      performance.mark("patchlens-found");
      this.panel.say(`${plural(this.table.list.order.length, "concept", "concepts")} found`);
    }, 150);
  }

  async searchLike(patches) {
    const turn = ++this.searchTurn;
    this.like = patches ? "patches" : "picture";
    this.panel.notice([]);
    this.field.value = "";
    this.panel.root.dataset.state = "busy";
    const asked = { picture: bus.picture.request, patches };
    const answer = await this.panel.ask({ way: "search", ...asked });
    this.panel.root.dataset.state = "ready";
    if (turn !== this.searchTurn || !answer) return;
    this.table.list.asked = asked;
    this.showFound(
      answer.found.map(([latent]) => latent),
      new Map(answer.found),
      patches ? "like the chosen patches" : "like the picture",
    );
  }

  offerPicture() {
    const { picture } = bus;
    const patches = picture ? picture.patches() : [];
    this.panel.find(".pl-like-picture").hidden = !this.props.setup.by_picture;
    this.panel.find(".pl-like-region").hidden = !this.props.setup.by_picture;
    this.panel.find(".pl-like-picture").disabled = !picture || !picture.request;
    this.panel.find(".pl-like-region").disabled = !picture || !picture.request || !patches.length;
  }

  layColours() {
    const choice = this.panel.find(".pl-colour-by");
    const offers = this.all.statistics.filter((one) => one.colour && this.all.figures[one.name]);
    for (const { name, label } of [{ name: "", label: "One colour" }, ...offers]) {
      const option = make("option", "", label);
      option.value = name;
      choice.append(option);
    }
    this.usualColour = this.all.figures[this.all.usualColour] ? this.all.usualColour : "";
    choice.addEventListener("change", () => {
      this.colourBy(choice.value);
      this.writeLink();
    });
    this.colourBy(this.usualColour);
  }

  colourBy(name) {
    this.map.atlas.colour = name;
    this.panel.find(".pl-colour-by").value = name;
    this.map.drawDots();
    this.layLegend();
  }

  layLegend() {
    const figure = this.all.figures[this.map.atlas.colour];
    this.panel.find(".pl-legend").hidden = !figure;
    if (!figure) return;
    this.heat.drawRamp(this.panel.find(".pl-ramp"));
    setText(this.panel.find(".pl-legend-low"), this.all.text(this.map.atlas.colour, figure.low));
    setText(this.panel.find(".pl-legend-high"), this.all.text(this.map.atlas.colour, figure.high));
  }

  refresh() {
    if (!this.all.n) return;
    this.offerPicture();
    this.table.filterAll();
    this.table.fillTable();
    this.map.drawDots();
  }

  // The view that the link names; what of it is not known here is left out.
  followLink() {
    const link = readLatents(this.limits.search_letters);
    this.following = true;
    if (!this.table.readShown(link.show)) leaveOut("some of its filters do not exist");
    this.table.filterAll();
    this.followColour(link.colour);
    this.followMap(link.map);
    this.map.showPart(link.zoom);
    this.table.fence(readLasso(link.lasso));
    this.field.value = link.text;
    this.searchText();
    this.followOrder(link);
    if (link.like && !link.text && bus.picture) this.searchLike(link.like === "patches" ? bus.picture.patches() : null);
    this.table.fillTable();
    this.following = false;
    this.writeLink();
  }

  followMap(name) {
    const { places } = this.map;
    if (name && !places.maps.has(name)) leaveOut("its map does not exist");
    places.take(places.maps.has(name) ? name : places.usual);
  }

  followOrder({ by, down }) {
    const isColumn = this.all.figures[by] && this.all.columns.some(({ name }) => name === by);
    if (by && by !== "name" && !isColumn) leaveOut("its sort order does not exist");
    else if (by) Object.assign(this.table.list, { by, down });
    else if (!this.table.list.found) Object.assign(this.table.list, this.all.usualOrder);
  }

  followColour(name) {
    const offered = [...this.panel.find(".pl-colour-by").options].map((option) => option.value);
    const asked = name === "none" ? "" : name === null ? this.usualColour : name;
    if (!offered.includes(asked)) leaveOut("its colours do not exist");
    this.colourBy(offered.includes(asked) ? asked : this.usualColour);
  }

  // A browser compiles the drawing loop after a few rounds: let it do so before anybody moves the map.
  drawWhileIdle(rounds) {
    const idle = window.requestIdleCallback || ((act) => setTimeout(act, 50));
    if (rounds) {
      idle(() => {
        this.map.drawDots();
        this.drawWhileIdle(rounds - 1);
      });
    }
  }

  async open() {
    if (!this.limits.has_index) {
      this.panel.root.dataset.state = "empty";
      this.panel.notice(NO_INDEX);
      this.panel.find(".pl-main").hidden = true;
      this.panel.find(".pl-find").hidden = true;
      return;
    }
    const packed = await this.panel.ask(
      { way: "latents" },
      "The map could not be fetched. Reload the page to try again.",
    );
    if (!packed) {
      this.panel.root.dataset.state = "empty";
      return;
    }
    this.all.take(packed);
    const ways = this.props.setup.by_meaning ? "name, number or meaning" : "name or number";
    this.field.placeholder = `Search by ${ways}: ${this.all.examples().join(", ")} …`;
    this.panel.root.dataset.state = "ready";
    this.map.placeDots(packed);
    this.table.filterAll();
    this.layColours();
    const alive = this.all.n - this.all.dead.reduce((sum, flag) => sum + flag, 0);
    this.map.plane.setAttribute("aria-description", KEYS);
    this.map.places.count = alive;
    this.map.places.tell();
    this.map.fitPlane();
    this.offerPicture();
    this.followLink();
    restoreWith("latents", () => this.followLink());
    performance.mark("patchlens-map-ready");
    this.drawWhileIdle(IDLE_ROUNDS);
    bus.receive("latents", ({ concept }) => {
      this.field.value = `#${concept}`;
      this.searchText();
    });
  }
}

export function start(component) {
  const tab = new LatentsTab(component);
  tab.listen();
  tab.open();
}
