// A pannable, zoomable image with sources on it. x and y are pixels of the FITS image from 0, y goes up.

import { Stretch } from "./stretch.js";
import { TileStore } from "./tiles.js";
import { drawFurniture, drawSources } from "./overlay.js";

const MOST_ZOOM = 64;

export class Viewer {
  constructor(root, meta, address, events) {
    Object.assign(this, { meta, address, events });
    this.canvas = root.querySelector("canvas.sky");
    this.overlay = root.querySelector("canvas.marks");
    this.plane = meta.planes[0].id;
    this.scales = new Map();
    this.stretch = new Stretch(meta);
    this.tiles = new TileStore(address, meta, this.stretch, () => this.redraw());
    this.sources = null;
    this.shown = null;
    this.selected = -1;
    this.marksOn = true;
    this.touched = false;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.resize();
  }

  // ---- what is shown

  async setPlane(plane) {
    this.plane = plane;
    if (!this.scales.has(plane)) {
      const address = `${this.address}/planes/${encodeURIComponent(plane)}?v=${this.meta.key}`;
      let answer = await fetch(address);
      // A busy server is asked again: the overview of a large image takes its time.
      for (let tries = 0; answer.status === 503 && tries < 20; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 3000));
        answer = await fetch(address);
      }
      if (!answer.ok) throw new Error((await answer.json()).error);
      this.scales.set(plane, await answer.json());
    }
    if (this.plane !== plane) return null;
    this.redraw();
    return this.scales.get(plane);
  }

  setStretch(change) {
    this.stretch.update(change);
    this.redraw();
  }

  setSources(sources, shown) {
    this.sources = sources;
    this.shown = shown;
    this.redraw();
  }

  select(index, { centre = false } = {}) {
    this.selected = index;
    if (centre && index >= 0 && this.sources) {
      const x = this.sources.x[index], y = this.sources.y[index];
      if (Number.isFinite(x) && Number.isFinite(y)) {
        // A selected source is worth seeing: at least a dozen screen pixels per width.
        const size = Math.max(this.sources.major[index] || 4, 2);
        this.look(x, y, Math.max(this.scale, Math.min(8, (24 * this.ratio) / size)));
      }
    }
    this.redraw();
  }

  // ---- where

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  get fitScale() {
    const [ny, nx] = this.meta.shape;
    return Math.min(this.canvas.width / nx, this.canvas.height / ny) * 0.98;
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width || !box.height) return;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(box.width * this.ratio);
      canvas.height = Math.round(box.height * this.ratio);
    }
    if (!this.touched) this.fit();
    this.redraw();
  }

  fit() {
    const [ny, nx] = this.meta.shape;
    this.look((nx - 1) / 2, (ny - 1) / 2, this.fitScale);
    this.touched = false;
  }

  look(x, y, scale) {
    const [ny, nx] = this.meta.shape;
    this.scale = Math.max(this.fitScale / 2, Math.min(MOST_ZOOM * this.ratio, scale));
    this.x = Math.max(-0.5, Math.min(nx - 0.5, x));
    this.y = Math.max(-0.5, Math.min(ny - 0.5, y));
    this.touched = true;
    this.redraw();
  }

  zoom(factor, at = null) {
    const [sx, sy] = at || [this.canvas.width / 2, this.canvas.height / 2];
    const [x, y] = this.toImage(sx, sy);
    const scale = Math.max(this.fitScale / 2, Math.min(MOST_ZOOM * this.ratio, this.scale * factor));
    this.look(x - (sx - this.canvas.width / 2) / scale, y + (sy - this.canvas.height / 2) / scale, scale);
  }

  pan(dx, dy) {
    this.look(this.x - dx / this.scale, this.y + dy / this.scale, this.scale);
  }

  toImage(sx, sy) {
    return [this.x + (sx - this.canvas.width / 2) / this.scale, this.y - (sy - this.canvas.height / 2) / this.scale];
  }

  toScreen(x, y) {
    return [this.canvas.width / 2 + (x - this.x) * this.scale, this.canvas.height / 2 - (y - this.y) * this.scale];
  }

  // Corners of the view, in image pixels: [x0, y0, x1, y1].
  get bounds() {
    const [x0, y1] = this.toImage(0, 0), [x1, y0] = this.toImage(this.canvas.width, this.canvas.height);
    return [x0, y0, x1, y1];
  }

  // ---- drawing

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      if (this.scale) this.draw();
    });
  }

  draw() {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#101418";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.scales.has(this.plane)) this.drawTiles(context);
    const marks = this.overlay.getContext("2d");
    marks.clearRect(0, 0, this.overlay.width, this.overlay.height);
    if (this.marksOn && this.sources) drawSources(marks, this);
    drawFurniture(marks, this);
    this.events.view?.(this);
  }

  drawTiles(context) {
    const [ny, nx] = this.meta.shape, side = this.meta.tile;
    const best = Math.max(0, Math.min(this.meta.levels - 1, Math.round(Math.log2(1 / this.scale) - 0.2)));
    const [left, top] = this.toScreen(-0.5, ny - 0.5), [right, bottom] = this.toScreen(nx - 0.5, -0.5);
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    const [x0, y0, x1, y1] = this.bounds, names = [];
    // Coarse tiles that are here stand in for finer ones that are not.
    for (let level = this.meta.levels - 1; level >= best; level--) {
      const size = side * 2 ** level;
      const last = [Math.ceil(ny / size) - 1, Math.ceil(nx / size) - 1];
      const rows = [Math.max(0, Math.floor((y0 + 0.5) / size)), Math.min(last[0], Math.floor((y1 + 0.5) / size))];
      const columns = [Math.max(0, Math.floor((x0 + 0.5) / size)), Math.min(last[1], Math.floor((x1 + 0.5) / size))];
      context.imageSmoothingEnabled = this.scale * 2 ** level < 2;
      for (let row = rows[0]; row <= rows[1]; row++) {
        for (let column = columns[0]; column <= columns[1]; column++) {
          const picture = this.tiles.get(this.plane, level, row, column);
          if (picture) this.drawTile(context, picture, size, row, column);
          else if (level === best || level === this.meta.levels - 1) {
            const dx = (column + 0.5) * size - this.x, dy = (row + 0.5) * size - this.y;
            names.push([level === best ? Math.hypot(dx, dy) : -1, this.tiles.name(this.plane, level, row, column)]);
          }
        }
      }
    }
    context.restore();
    names.sort((a, b) => a[0] - b[0]);
    this.tiles.want(names.map(([, name]) => name));
    this.canvas.dataset.missing = names.length;
  }

  drawTile(context, picture, size, row, column) {
    const [left, bottom] = this.toScreen(column * size - 0.5, row * size - 0.5).map(Math.round);
    const [right, top] = this.toScreen((column + 1) * size - 0.5, (row + 1) * size - 0.5).map(Math.round);
    context.drawImage(picture, left, top, right - left, bottom - top);
  }

  // ---- pointer and keys

  listen() {
    const target = this.overlay;
    const at = (event) => {
      const box = target.getBoundingClientRect();
      return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
    };
    target.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY)) / 300), at(event));
    }, { passive: false });
    target.addEventListener("pointerdown", (event) => {
      target.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
      this.moved = 0;
    });
    target.addEventListener("pointermove", (event) => {
      const now = at(event), before = this.pointers.get(event.pointerId);
      if (before) {
        if (this.pointers.size === 2) {
          const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
          const apart = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
          this.zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
        } else this.pan(now[0] - before[0], now[1] - before[1]);
        this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
        this.pointers.set(event.pointerId, now);
      }
      this.events.cursor?.(this.toImage(...now));
    });
    const end = (event) => {
      if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel") return;
      if (this.moved < 5 * this.ratio && !this.pointers.size) this.click(at(event));
    };
    target.addEventListener("pointerup", end);
    target.addEventListener("pointercancel", end);
    target.addEventListener("pointerleave", () => this.events.cursor?.(null));
    target.addEventListener("dblclick", (event) => this.zoom(2, at(event)));
    target.addEventListener("keydown", (event) => this.key(event));
  }

  click(screen) {
    const [x, y] = this.toImage(...screen);
    const index = this.sources && this.marksOn ? this.sources.nearest(x, y, (14 * this.ratio) / this.scale, this.shown) : -1;
    this.events.click?.(index, x, y);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.15 * Math.min(this.canvas.width, this.canvas.height);
    const actions = {
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5),
      0: () => this.fit(), 1: () => this.look(this.x, this.y, this.ratio),
      n: () => this.events.step?.(1), p: () => this.events.step?.(-1),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }
}
