// The map by keyboard and by two fingers: arrows go from dot to dot, plus and minus zoom, fingers pinch.

const ZOOM_STEP = 1.5;
const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

export class MapKeys {
  constructor(map) {
    this.map = map;
    this.fingers = new Map();
    this.pinch = null;
    map.plane.addEventListener("keydown", (event) => this.press(event));
    map.panel.find(".pl-closer").addEventListener("click", () => this.zoomMiddle(ZOOM_STEP));
    map.panel.find(".pl-wider").addEventListener("click", () => this.zoomMiddle(1 / ZOOM_STEP));
  }

  zoomMiddle(factor) {
    const { width, height } = this.map.atlas;
    this.map.zoomAt(width / 2, height / 2, factor);
  }

  press(event) {
    const { map } = this;
    if (event.target !== map.plane || event.ctrlKey || event.metaKey || event.altKey || !map.all.n) return;
    const { hover } = map.atlas;
    if (ARROWS[event.key]) this.step(ARROWS[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomMiddle(ZOOM_STEP);
    else if (event.key === "-") this.zoomMiddle(1 / ZOOM_STEP);
    else if (event.key === "0" || event.key === "Home") map.moveTo(0, 0, 1);
    else if ((event.key === "Enter" || event.key === " ") && hover >= 0) map.openCard(hover);
    else if (event.key === "Escape" && hover >= 0) map.pointAt(-1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // To the nearest dot in a direction, or from nowhere to the one nearest the middle.
  step([right, down]) {
    const { map } = this;
    const { x, y, width, height, hover } = map.atlas;
    const { kept, found } = map.tab.table.list;
    const isFound = found && new Set(map.tab.table.list.order);
    const [fromX, fromY] = hover < 0 ? [width / 2, height / 2] : [map.screenX(x[hover]), map.screenY(y[hover])];
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < map.all.n; i++) {
      if (!kept[i] || i === hover || (isFound && !isFound.has(i))) continue;
      const sx = map.screenX(x[i]);
      const sy = map.screenY(y[i]);
      if (!(sx >= 0 && sy >= 0 && sx <= width && sy <= height)) continue;
      const ahead = (sx - fromX) * right + (sy - fromY) * down;
      const aside = Math.abs((sx - fromX) * down) + Math.abs((sy - fromY) * right);
      if (hover >= 0 && (ahead <= 0 || aside > ahead)) continue;
      const far = hover < 0 ? Math.hypot(sx - fromX, sy - fromY) : ahead + 2 * aside;
      if (far < least) [best, least] = [i, far];
    }
    if (best < 0) return;
    map.pointAt(best, map.screenX(x[best]));
    map.panel.say(map.all.word(best));
  }

  // A finger or the mouse went down: whether it is the second, and so a pinch.
  down(event, spot) {
    this.fingers.set(event.pointerId, spot);
    if (this.fingers.size !== 2) return this.pinch !== null;
    this.pinch = this.between();
    return true;
  }

  // Whether a pinch goes on, and so nothing else.
  move(event, spot) {
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, spot);
    if (!this.pinch) return false;
    const now = this.between();
    this.map.shift(this.pinch.x - now.x, this.pinch.y - now.y, this.map.atlas.view);
    this.map.zoomAt(now.x, now.y, now.far / Math.max(1, this.pinch.far));
    this.pinch = now;
    return true;
  }

  // Whether a pinch is over or still goes on with other fingers.
  up(event) {
    const pinched = this.pinch !== null;
    this.fingers.delete(event.pointerId);
    if (this.fingers.size < 2) this.pinch = null;
    return pinched;
  }

  between() {
    const [[x1, y1], [x2, y2]] = [...this.fingers.values()];
    return { x: (x1 + x2) / 2, y: (y1 + y2) / 2, far: Math.hypot(x1 - x2, y1 - y2) };
  }
}
