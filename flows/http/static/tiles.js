// Tiles of one observation: asked for when they are in view, forgotten when memory fills.

import { unpack } from "./stretch.js";

const KEPT = 220; // 128 kB of numbers and 256 kB of picture each
const AT_ONCE = 6;

export class TileStore {
  constructor(address, meta, stretch, changed) {
    Object.assign(this, { address, meta, stretch, changed });
    this.tiles = new Map();
    this.waiting = new Map();
    this.failed = new Map();
    this.wanted = [];
  }

  name(plane, level, row, column) {
    return `${plane}/${level}/${row}/${column}`;
  }

  // The picture of a tile, or null when it is not here yet.
  get(plane, level, row, column) {
    const name = this.name(plane, level, row, column), tile = this.tiles.get(name);
    if (!tile) return null;
    this.tiles.delete(name);
    this.tiles.set(name, tile);
    if (tile.version !== this.stretch.version) {
      this.stretch.paint(tile.values, tile.canvas);
      tile.version = this.stretch.version;
    }
    return tile.canvas;
  }

  // Names in the order of their urgency; what is on its way for an older view is given up.
  want(names) {
    this.wanted = names.filter((name) => !this.tiles.has(name) && !this.failed.has(name));
    const needed = new Set(names);
    for (const [name, control] of this.waiting) if (!needed.has(name)) control.abort();
    this.next();
  }

  get busy() {
    return this.waiting.size > 0;
  }

  next() {
    while (this.waiting.size < AT_ONCE && this.wanted.length) {
      const name = this.wanted.shift();
      if (!this.waiting.has(name) && !this.tiles.has(name)) this.load(name);
    }
  }

  async load(name) {
    const control = new AbortController();
    this.waiting.set(name, control);
    try {
      const answer = await fetch(`${this.address}/tiles/${name}?v=${this.meta.key}`, { signal: control.signal });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = this.meta.tile;
      this.tiles.set(name, { values: unpack(await answer.arrayBuffer()), canvas, version: -1 });
      while (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value);
    } catch (error) {
      if (error.name !== "AbortError") {
        this.failed.set(name, error.message);
        // A server that was busy or restarted is asked again, without haste.
        setTimeout(() => { this.failed.delete(name); this.changed(); }, 3000);
      }
    } finally {
      this.waiting.delete(name);
      this.changed();
      this.next();
    }
  }
}
