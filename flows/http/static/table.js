// A table of any length: only the rows in view are in the document. Sorted and filtered here.

const ROW = 24, SPARE = 12;

const FORMATS = {
  ra: (v) => v.toFixed(5), dec: (v) => v.toFixed(5), p_real: (v) => v.toFixed(3), snr: (v) => v.toFixed(1),
  pa: (v) => v.toFixed(0), freq: (v) => v.toFixed(4),
};

export function show(name, value) {
  if (typeof value === "string") return value;
  if (!Number.isFinite(value)) return "–";
  if (FORMATS[name]) return FORMATS[name](value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// "> 5", "<=0.1", "3..10", "4.2", or a part of a text; null when it cannot be understood.
export function readFilter(text, isText) {
  const wanted = text.trim();
  if (!wanted) return undefined;
  if (isText) return (v) => v.toLowerCase().includes(wanted.toLowerCase());
  const number = "([-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?)";
  let match = wanted.match(new RegExp(`^${number}\\s*\\.\\.\\s*${number}$`));
  if (match) return (v) => v >= Number(match[1]) && v <= Number(match[2]);
  match = wanted.match(new RegExp(`^(<=|>=|<|>|=|&)?\\s*${number}$`));
  if (!match) return null;
  const limit = Number(match[2]);
  return {
    "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit, ">=": (v) => v >= limit,
    "=": (v) => v === limit, "&": (v) => (v & limit) !== 0,
  }[match[1] || "="];
}

export class VirtualTable {
  constructor(root, sources, events) {
    Object.assign(this, { root, sources, events });
    this.columns = sources.columns;
    this.filters = new Map();
    this.sorting = { name: null, up: true };
    this.order = Uint32Array.from({ length: sources.rows }, (_, i) => i);
    this.selected = -1;
    this.view = null;
    this.build();
    this.apply();
  }

  build() {
    const element = (tag, attributes = {}, text = "") => {
      const made = document.createElement(tag);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      if (text) made.textContent = text;
      return made;
    };
    this.scroller = element("div", { class: "rows", tabindex: "0", role: "grid", "aria-label": "sources",
      "aria-rowcount": String(this.sources.rows) });
    const head = element("div", { class: "head", role: "row" });
    this.buttons = new Map();
    for (const column of this.columns) {
      const cell = element("div", { class: `cell c-${column.name}`, role: "columnheader" });
      const button = element("button", { type: "button", title: column.description }, column.label || column.name);
      if (column.unit) button.append(element("small", {}, column.unit));
      button.addEventListener("click", () => this.sort(column.name));
      const filter = element("input", { type: "text", spellcheck: "false", autocomplete: "off",
        "aria-label": `filter ${column.name}`, placeholder: column.type === "text" ? "contains" : "> 5" });
      filter.addEventListener("input", () => this.filter(column, filter));
      cell.append(button, filter);
      head.append(cell);
      this.buttons.set(column.name, { button, cell, filter });
    }
    this.space = element("div", { class: "space", role: "rowgroup" });
    this.scroller.append(head, this.space);
    this.scroller.addEventListener("scroll", () => this.later());
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.space.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.index));
    });
    this.root.replaceChildren(this.scroller);
    new ResizeObserver(() => this.later()).observe(this.scroller);
  }

  sort(name) {
    const numeric = this.columns.find((c) => c.name === name).type !== "text";
    // Numbers begin with the largest: the brightest is looked for more often than the faintest.
    const up = this.sorting.name === name ? !this.sorting.up : !numeric;
    this.sorting = { name, up };
    for (const [key, { cell }] of this.buttons) {
      if (key === name) cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    this.apply();
  }

  filter(column, input) {
    const test = readFilter(input.value, column.type === "text");
    input.setAttribute("aria-invalid", String(test === null));
    if (test) this.filters.set(column.name, test);
    else this.filters.delete(column.name);
    this.apply();
  }

  clear() {
    for (const { filter } of this.buttons.values()) { filter.value = ""; filter.removeAttribute("aria-invalid"); }
    this.filters.clear();
    this.apply();
  }

  // Only rows within these corners [x0, y0, x1, y1] of the image; null for all.
  setView(bounds) {
    this.view = bounds;
    this.apply();
  }

  apply() {
    const { sources } = this, mask = new Uint8Array(sources.rows).fill(1);
    for (const [name, test] of this.filters) {
      const values = sources[name];
      for (let i = 0; i < mask.length; i++) if (mask[i] && !test(values[i])) mask[i] = 0;
    }
    this.events.filtered?.(this.filters.size ? mask : null);
    const inView = this.view && sources.x
      ? (i) => sources.x[i] >= this.view[0] && sources.x[i] <= this.view[2] && sources.y[i] >= this.view[1] && sources.y[i] <= this.view[3]
      : () => true;
    const order = [];
    for (let i = 0; i < mask.length; i++) if (mask[i] && inView(i)) order.push(i);
    const values = this.sorting.name && sources[this.sorting.name], sign = this.sorting.up ? 1 : -1;
    if (values && typeof values[0] === "string") order.sort((a, b) => sign * (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : a - b));
    else if (values) {
      // What is not known goes last, whichever way the rest is sorted.
      const key = Float64Array.from(values, (v) => (Number.isNaN(v) ? Infinity : sign * v));
      order.sort((a, b) => key[a] - key[b] || a - b || 0);
    }
    this.order = Uint32Array.from(order);
    this.space.style.height = `${this.order.length * ROW}px`;
    this.scroller.setAttribute("aria-rowcount", String(this.order.length));
    this.events.counted?.(this.order.length, sources.rows, sources.total);
    this.drawn = null;
    this.later();
  }

  later() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }

  draw() {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - SPARE);
    const last = Math.min(this.order.length, first + Math.ceil(this.scroller.clientHeight / ROW) + 2 * SPARE);
    const window = `${first}-${last}-${this.selected}`;
    if (this.drawn === window) return;
    this.drawn = window;
    const rows = document.createDocumentFragment();
    for (let place = first; place < last; place++) {
      const index = this.order[place], row = document.createElement("div");
      row.className = index === this.selected ? "row selected" : "row";
      row.setAttribute("role", "row");
      row.setAttribute("aria-rowindex", String(place + 1));
      row.setAttribute("aria-selected", String(index === this.selected));
      row.dataset.index = index;
      row.style.top = `${place * ROW}px`;
      for (const column of this.columns) {
        const cell = document.createElement("div");
        cell.className = `cell c-${column.name}`;
        cell.setAttribute("role", "gridcell");
        cell.textContent = show(column.name, this.sources[column.name][index]);
        row.append(cell);
      }
      rows.append(row);
    }
    this.space.replaceChildren(rows);
  }

  choose(index) {
    this.mark(index);
    this.events.chosen?.(index);
  }

  // Mark a row and bring it into view; nothing else hears of it.
  mark(index) {
    this.selected = index;
    const place = this.order.indexOf(index);
    if (place >= 0) {
      const top = place * ROW, { scrollTop } = this.scroller;
      const height = this.scroller.clientHeight - this.space.offsetTop;
      if (top < scrollTop || top > scrollTop + height - ROW) this.scroller.scrollTop = Math.max(0, top - height / 2);
    }
    this.later();
  }

  step(by) {
    if (!this.order.length) return;
    const place = this.order.indexOf(this.selected);
    this.choose(this.order[Math.max(0, Math.min(this.order.length - 1, place < 0 && by < this.order.length ? 0 : place + by))]);
  }

  key(event) {
    if (event.target !== this.scroller) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 3);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.order.length, End: this.order.length };
    if (steps[event.key] === undefined) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }

  // What is shown, as CSV.
  csv() {
    const quote = (v) => (typeof v === "string" ? `"${v.replaceAll('"', '""')}"` : Number.isFinite(v) ? String(v) : "");
    const lines = [this.columns.map((c) => c.name).join(",")];
    for (const index of this.order) lines.push(this.columns.map((c) => quote(this.sources[c.name][index])).join(","));
    return lines.join("\n") + "\n";
  }
}
