// The spectrum at a position of a cube, as SVG; a click shows that channel.

const SVG = "http://www.w3.org/2000/svg";

function add(parent, tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function niceTicks(low, high, count) {
  let step = 10 ** Math.floor(Math.log10((high - low) / count));
  step *= [1, 2, 5, 10].find((m) => (high - low) / (step * m) <= count);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
  return ticks;
}

export function drawSpectrum(svg, spectrum, title, chosen) {
  const [width, height, left, right, top, bottom] = [640, 190, 64, 10, 22, 34];
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const { frequency, value, unit } = spectrum, known = value.filter((v) => v !== null);
  add(svg, "text", { x: left, y: 14, class: "title" }, `${title}: mean over ${spectrum.pixels} pixels`);
  if (!known.length) return;
  const low = Math.min(0, ...known), high = Math.max(...known, low + 1e-30);
  const x = (channel) => left + ((width - left - right) * channel) / Math.max(1, value.length - 1);
  const y = (v) => top + (height - top - bottom) * (1 - (v - low) / (high - low));
  for (const v of niceTicks(low, high, 4)) {
    add(svg, "line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: "grid" });
    add(svg, "text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, Number(v.toPrecision(3)).toString());
  }
  for (let k = 0; k <= 4; k++) {
    const channel = Math.round(((value.length - 1) * k) / 4);
    add(svg, "text", { x: x(channel), y: height - 18, "text-anchor": k === 4 ? "end" : k ? "middle" : "start" }, frequency[channel].toFixed(2));
  }
  add(svg, "text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "frequency, MHz");
  add(svg, "text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, unit);
  let path = "", before = false;
  value.forEach((v, i) => {
    if (v === null) { before = false; return; }
    const step = (x(1) - x(0)) / 2;
    path += `${before ? "L" : "M"}${(x(i) - step).toFixed(1)} ${y(v).toFixed(1)}L${(x(i) + step).toFixed(1)} ${y(v).toFixed(1)}`;
    before = true;
  });
  add(svg, "path", { d: path, class: "line" });
  add(svg, "line", { x1: left, x2: width - right, y1: y(0), y2: y(0), class: "zero" });
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * width;
    chosen(Math.max(0, Math.min(value.length - 1, Math.round(((at - left) / (width - left - right)) * (value.length - 1)))));
  };
}
