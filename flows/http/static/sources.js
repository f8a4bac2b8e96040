// The catalogue of a run as typed arrays, and where its sources lie.

const TYPES = { f4: Float32Array, f8: Float64Array, i4: Int32Array };
const CELLS = 96;

// Layout: uint32 length of a JSON header, the header, then the columns, each on a multiple of 8 bytes.
export function decode(buffer) {
  const head = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, head)));
  const table = new Sources(header);
  for (const column of header.columns) {
    if (column.type === "text") {
      const bytes = new Uint8Array(buffer, column.offset, column.bytes);
      table[column.name] = header.rows ? new TextDecoder().decode(bytes).split("\n") : [];
    } else table[column.name] = new TYPES[column.type](buffer, column.offset, header.rows);
  }
  table.index();
  return table;
}

export class Sources {
  constructor(header) {
    Object.assign(this, { rows: header.rows, total: header.total, columns: header.columns.filter((c) => c.show) });
  }

  // Sources by cell of a grid over their extent, in each cell by falling S/N (the order they come in).
  index() {
    this.cells = Array.from({ length: CELLS * CELLS }, () => []);
    if (!this.x) return;
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < this.rows; i++) {
      if (!Number.isFinite(this.x[i]) || !Number.isFinite(this.y[i])) continue;
      x0 = Math.min(x0, this.x[i]); x1 = Math.max(x1, this.x[i]);
      y0 = Math.min(y0, this.y[i]); y1 = Math.max(y1, this.y[i]);
    }
    this.frame = { x0, y0, dx: Math.max((x1 - x0) / CELLS, 1e-6), dy: Math.max((y1 - y0) / CELLS, 1e-6) };
    for (let i = 0; i < this.rows; i++) {
      if (Number.isFinite(this.x[i]) && Number.isFinite(this.y[i])) this.cells[this.cell(this.x[i], this.y[i])].push(i);
    }
  }

  place(value, from, step) {
    return Math.max(0, Math.min(CELLS - 1, Math.floor((value - from) / step)));
  }

  cell(x, y) {
    const { x0, y0, dx, dy } = this.frame;
    return this.place(y, y0, dy) * CELLS + this.place(x, x0, dx);
  }

  // Rows within a rectangle, at most `limit` of them, those of highest S/N; `shown` is a mask or null.
  within(x0, y0, x1, y1, shown, limit) {
    const found = [];
    if (this.frame) {
      const { frame } = this;
      for (let r = this.place(y0, frame.y0, frame.dy); r <= this.place(y1, frame.y0, frame.dy); r++) {
        for (let c = this.place(x0, frame.x0, frame.dx); c <= this.place(x1, frame.x0, frame.dx); c++) {
          for (const i of this.cells[r * CELLS + c]) {
            const x = this.x[i], y = this.y[i];
            if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && (!shown || shown[i])) found.push(i);
          }
        }
      }
    }
    const total = found.length;
    if (total > limit) {
      found.sort((a, b) => a - b); // rows come by falling S/N
      found.length = limit;
    }
    return { indices: found, total };
  }

  nearest(x, y, radius, shown) {
    let best = -1, least = Infinity;
    for (const i of this.within(x - radius, y - radius, x + radius, y + radius, shown, Infinity).indices) {
      const distance = Math.hypot(this.x[i] - x, this.y[i] - y);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }
}
