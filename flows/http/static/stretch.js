// Numbers of a tile to colours: the server sends 128 asinh(S/N / 4), the page chooses black, white, curve and colours.

const CURVES = {
  asinh: (s) => Math.asinh(s / 4),
  linear: (s) => s,
  sqrt: (s) => Math.sign(s) * Math.sqrt(Math.abs(s)),
  log: (s) => Math.sign(s) * Math.log1p(Math.abs(s)),
};

// Colours at equal steps from black to white, rising in lightness throughout.
const COLOURS = {
  grey: [[0, 0, 0], [255, 255, 255]],
  inverted: [[255, 255, 255], [0, 0, 0]],
  heat: [[0, 0, 0], [58, 12, 92], [140, 30, 106], [212, 66, 72], [248, 134, 32], [250, 205, 90], [253, 250, 220]],
  ice: [[2, 6, 20], [12, 44, 92], [20, 96, 150], [50, 152, 188], [130, 204, 210], [238, 252, 250]],
};

const BLANK_COLOUR = 0xff4a3a32; // ABGR: a slate that no colour scale has
const FIRST = -2048, LAST = 4095; // tile numbers beyond these saturate: S/N of -1.8e7 and 1.6e14

export class Stretch {
  constructor(meta) {
    this.meta = meta;
    this.black = -1.5;
    this.white = 25;
    this.curve = "asinh";
    this.colour = "grey";
    this.version = 0;
    this.table = new Uint32Array(LAST - FIRST + 1);
    this.update({});
  }

  update(change) {
    Object.assign(this, change);
    this.version += 1;
    const curve = CURVES[this.curve], stops = COLOURS[this.colour];
    const low = curve(this.black), high = Math.max(curve(this.white), low + 1e-9);
    const ramp = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const at = (i / 255) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
      const [r, g, b] = [0, 1, 2].map((c) => Math.round(stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c])));
      ramp[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    for (let q = FIRST; q <= LAST; q++) {
      const s = this.meta.softening * Math.sinh(q / this.meta.scale);
      const share = (curve(s) - low) / (high - low);
      this.table[q - FIRST] = ramp[Math.max(0, Math.min(255, Math.round(255 * share)))];
    }
  }

  // Paint a tile; its first row is the lowest of the image, a canvas' first row is the highest.
  paint(values, canvas) {
    const side = this.meta.tile, context = canvas.getContext("2d");
    const image = context.createImageData(side, side), pixels = new Uint32Array(image.data.buffer);
    for (let row = 0; row < side; row++) {
      const from = row * side, to = (side - 1 - row) * side;
      for (let column = 0; column < side; column++) {
        const q = values[from + column];
        pixels[to + column] = q === this.meta.blank
          ? BLANK_COLOUR : this.table[(q < FIRST ? FIRST : q > LAST ? LAST : q) - FIRST];
      }
    }
    context.putImageData(image, 0, 0);
  }
}

// High bytes of all numbers, then the low ones.
export function unpack(buffer) {
  const bytes = new Uint8Array(buffer), count = bytes.length / 2, values = new Int16Array(count);
  for (let i = 0; i < count; i++) values[i] = (bytes[i] << 8) | bytes[count + i];
  return values;
}
