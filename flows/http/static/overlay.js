// What lies over the image: rings around the sources, compass, scale bar, beam.

const ROOM = 15; // screen pixels a side for each ring: more rings would hide the image, those of highest S/N are drawn
const CROWD = 500; // from this many rings on they are drawn small and thin
const INK = "#ffffff";

// Certain sources in cyan, doubtful ones in orange: told apart without red and green.
export function certaintyColour(p) {
  const share = Number.isFinite(p) ? Math.max(0, Math.min(1, p)) : 1;
  const low = [255, 140, 40], high = [70, 220, 255];
  return `rgb(${low.map((from, i) => Math.round(from + share * (high[i] - from))).join(",")})`;
}

const RING_COLOURS = Array.from({ length: 11 }, (_, i) => certaintyColour(i / 10));

export function drawSources(context, viewer) {
  const { sources, shown, ratio, scale } = viewer, [x0, y0, x1, y1] = viewer.bounds;
  const margin = (20 * ratio) / scale, most = Math.round((viewer.overlay.width * viewer.overlay.height) / (ROOM * ratio) ** 2);
  const { indices, total } = sources.within(x0 - margin, y0 - margin, x1 + margin, y1 + margin, shown, most);
  viewer.crowded = indices.length > CROWD;
  const groups = RING_COLOURS.map(() => []);
  for (const i of indices) {
    const p = sources.p_real[i];
    groups[Math.round(10 * (Number.isFinite(p) ? Math.max(0, Math.min(1, p)) : 1))].push(i);
  }
  const width = (viewer.crowded ? 1 : 1.4) * ratio;
  // A dark edge first: a ring must also show on a source so bright that it is white.
  groups.forEach((group) => ringAll(context, viewer, group, "rgba(0,0,0,0.65)", width + 2 * ratio));
  groups.forEach((group, k) => ringAll(context, viewer, group, RING_COLOURS[k], width));
  if (viewer.selected >= 0 && Number.isFinite(sources.x[viewer.selected])) {
    for (const [colour, width] of [["#000000", 5], ["#ffee55", 2.6]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * ratio;
      context.beginPath();
      ring(context, viewer, viewer.selected, 1.25);
      context.stroke();
    }
  }
  viewer.overlay.dataset.rings = indices.length;
  if (total > indices.length) {
    const text = `${indices.length.toLocaleString("en")} of ${total.toLocaleString("en")} sources in view ringed (highest S/N)`;
    label(context, text, viewer.overlay.width - 10 * ratio, 18 * ratio, ratio, "right");
  }
}

function ringAll(context, viewer, group, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  for (const i of group) ring(context, viewer, i, 1);
  context.stroke();
}

function ring(context, viewer, i, grow) {
  const { sources, scale, ratio } = viewer, [sx, sy] = viewer.toScreen(sources.x[i], sources.y[i]);
  const least = (viewer.crowded ? 3 : 5) * ratio;
  // Twice the FWHM across: a ring that does not cover what it marks.
  const major = Math.max(sources.major[i] * scale, least) * grow, minor = Math.max(sources.minor[i] * scale, least) * grow;
  context.moveTo(sx + major * Math.cos(sources.theta[i]), sy - major * Math.sin(sources.theta[i]));
  context.ellipse(sx, sy, major, minor, -sources.theta[i], 0, 2 * Math.PI);
}

function label(context, text, x, y, ratio, align = "left") {
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = align;
  context.lineWidth = 3 * ratio;
  context.lineJoin = "round";
  context.strokeStyle = "rgba(0,0,0,0.75)";
  context.strokeText(text, x, y);
  context.fillStyle = INK;
  context.fillText(text, x, y);
}

function stroke(context, ratio, path) {
  for (const [colour, width] of [["rgba(0,0,0,0.75)", 4], [INK, 1.6]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * ratio;
    context.beginPath();
    path();
    context.stroke();
  }
}

const STEPS = [1, 2, 5, 10, 15, 30];

function niceLength(arcsec) {
  for (const unit of [[3600, "°"], [60, "′"], [1, "″"]]) {
    const fitting = STEPS.filter((step) => step * unit[0] <= arcsec);
    if (arcsec > 60 * unit[0] && unit[0] === 3600) break;
    if (fitting.length) return [fitting[fitting.length - 1] * unit[0], `${fitting[fitting.length - 1]}${unit[1]}`];
  }
  const power = 10 ** Math.floor(Math.log10(arcsec));
  return [power, `${Number(power.toPrecision(3))}″`];
}

export function drawFurniture(context, viewer) {
  const { meta, ratio, scale } = viewer, height = viewer.overlay.height, width = viewer.overlay.width;
  const [[ex, ey], [nx, ny]] = meta.jacobian, det = ex * ny - ey * nx;
  if (meta.pixel_scale > 0) {
    const [length, text] = niceLength((0.22 * width / scale) * meta.pixel_scale);
    const pixels = (length / meta.pixel_scale) * scale, x = 14 * ratio, y = height - 16 * ratio;
    stroke(context, ratio, () => {
      context.moveTo(x, y - 4 * ratio); context.lineTo(x, y);
      context.lineTo(x + pixels, y); context.lineTo(x + pixels, y - 4 * ratio);
    });
    label(context, text, x + pixels / 2, y - 7 * ratio, ratio, "center");
  }
  if (det) {
    // Pixel directions of east and north: the columns of the inverse.
    const origin = [width - 42 * ratio, height - 42 * ratio], length = 22 * ratio;
    for (const [name, dx, dy] of [["E", ny / det, -nx / det], ["N", -ey / det, ex / det]]) {
      const norm = Math.hypot(dx, dy), tip = [origin[0] + (length * dx) / norm, origin[1] - (length * dy) / norm];
      stroke(context, ratio, () => { context.moveTo(...origin); context.lineTo(...tip); });
      const at = [origin[0] + (1.45 * length * dx) / norm, origin[1] - (1.45 * length * dy) / norm + 4 * ratio];
      label(context, name, ...at, ratio, "center");
    }
  }
  if (meta.beam) {
    const [major, minor, theta] = meta.beam.pixels, half = (0.5 * major) * scale;
    if (half > 2 * ratio && half < 60 * ratio) {
      const x = 18 * ratio + half, y = height - 42 * ratio - half;
      stroke(context, ratio, () => context.ellipse(x, y, half, 0.5 * minor * scale, -theta, 0, 2 * Math.PI));
      label(context, "beam", x + half + 6 * ratio, y + 4 * ratio, ratio);
    }
  }
}
