// The page of one observation: image, table and spectrum that follow one selection.

import { decode } from "./sources.js";
import { VirtualTable, show } from "./table.js";
import { Viewer } from "./viewer.js";
import { drawSpectrum } from "./spectrum.js";

const page = JSON.parse(document.getElementById("page-data").textContent);
const find = (selector) => document.querySelector(selector);
const say = (text) => { find("#message").textContent = text; find("#message").hidden = !text; };

let viewer = null, table = null, sources = null, meta = null;

function sexagesimal(ra, dec) {
  const split = (value, places) => {
    const unit = 10 ** places;
    let rest = Math.round(value * 3600 * unit);
    const whole = Math.floor(rest / (3600 * unit));
    rest -= whole * 3600 * unit;
    const minutes = Math.floor(rest / (60 * unit)), seconds = (rest - minutes * 60 * unit) / unit;
    return [whole, minutes, seconds].map((v, i) => (i < 2 ? String(v) : v.toFixed(places)).padStart(i < 2 ? 2 : places + 3, "0"));
  };
  const [h, m, s] = split(ra / 15, 2), [d, am, as] = split(Math.abs(dec), 1);
  return `${String(Number(h) % 24).padStart(2, "0")}:${m}:${s} ${dec < 0 ? "−" : "+"}${d}:${am}:${as}`;
}

// ---- reading values under the cursor: one question at a time, the latest position wins

let asking = false, asked = null;
async function probe(position) {
  asked = position;
  if (asking || !position) {
    if (!position) find("#readout").textContent = find("#readout").dataset.empty;
    return;
  }
  asking = true;
  try {
    while (asked) {
      const [x, y] = asked;
      asked = null;
      const answer = await fetch(`${page.address}/probe?plane=${viewer.plane}&x=${x.toFixed(3)}&y=${y.toFixed(3)}`);
      if (!answer.ok) break;
      const value = await answer.json(), scale = viewer.scales.get(viewer.plane);
      const parts = value.ra === null ? ["no sky"] : [sexagesimal(value.ra, value.dec), `${value.ra.toFixed(5)} ${value.dec.toFixed(5)}`];
      parts.push(`x ${x.toFixed(1)} y ${y.toFixed(1)}`);
      parts.push(value.value === null ? "blank" : `${value.value.toPrecision(4)} ${scale?.unit ?? ""}`.trim());
      if (value.snr !== null && viewer.plane !== "peak") parts.push(`S/N ${value.snr.toFixed(1)}`);
      find("#readout").textContent = parts.join("   ");
    }
  } catch { /* the server is away: the last value stays */ } finally {
    asking = false;
  }
}

// ---- selection

let detailed = -1;
async function details(index) {
  detailed = index;
  const panel = find("#source");
  if (index < 0) { panel.hidden = true; return; }
  const answer = await fetch(`${page.address}/sources/${sources.row[index]}?run=${page.run}`);
  if (!answer.ok || detailed !== index) return;
  const values = await answer.json(), list = panel.querySelector("dl");
  panel.querySelector("h3").textContent = values.title;
  list.replaceChildren();
  for (const item of values.items) {
    if (item.value === null) continue;
    const term = document.createElement("dt"), value = document.createElement("dd");
    term.textContent = item.name;
    term.title = item.description;
    value.textContent = `${typeof item.value === "number" ? show(item.name, item.value) : item.value ?? "–"} ${item.unit}`.trim();
    list.append(term, value);
  }
  const links = panel.querySelector(".links");
  links.replaceChildren();
  for (const link of values.links) {
    const anchor = document.createElement("a");
    anchor.href = link.href;
    anchor.textContent = link.text;
    links.append(anchor);
  }
  panel.hidden = false;
}

function selected(index, from) {
  if (viewer) viewer.select(index, { centre: from !== "image" });
  if (table && from !== "table") table.mark(index);
  details(index);
  if (index >= 0 && meta?.frequencies) {
    spectrum(sources.x[index], sources.y[index], Math.max(1, (sources.major?.[index] || 2) / 2), sources.name[index]);
    const channel = sources.freq ? nearestChannel(sources.freq[index]) : -1;
    find("#channel").dataset.source = String(channel);
  }
  const name = index >= 0 ? sources.name[index] || `source ${sources.row[index]}` : "";
  find("#announce").textContent = name ? `selected ${name}` : "nothing selected";
}

function nearestChannel(megahertz) {
  if (!Number.isFinite(megahertz)) return -1;
  let best = 0;
  meta.frequencies.forEach((f, i) => { if (Math.abs(f - megahertz) < Math.abs(meta.frequencies[best] - megahertz)) best = i; });
  return best;
}

async function spectrum(x, y, radius, title) {
  if (!Number.isFinite(x) || !Number.isFinite(y)) return;
  const answer = await fetch(`${page.address}/spectrum?x=${x.toFixed(2)}&y=${y.toFixed(2)}&radius=${radius.toFixed(2)}`);
  if (!answer.ok) return;
  drawSpectrum(find("#spectrum"), await answer.json(), title, (channel) => setChannel(channel));
}

// ---- controls

function contrast() {
  // Sliders in units that the eye takes as even: black linear, white logarithmic.
  const white = 10 ** Number(find("#white").value), black = Number(find("#black").value);
  viewer.setStretch({ black, white: Math.max(white, black + 0.1), curve: find("#curve").value, colour: find("#colours").value });
  find("#black-value").textContent = `${black.toFixed(1)}σ`;
  find("#white-value").textContent = `${white < 10 ? white.toFixed(1) : Math.round(white)}σ`;
}

async function setPlane(plane) {
  say(viewer.scales.has(plane) ? "" : page.large ? "reading the image once for its overview…" : "");
  try {
    const scale = await viewer.setPlane(plane);
    if (!scale) return;
    say("");
    find("#white").value = Math.log10(Number(plane) >= 0 ? Math.max(scale.top / 3, 8) : scale.top).toFixed(2);
    contrast();
  } catch (error) {
    say(`the image cannot be shown: ${error.message}`);
  }
}

function setChannel(channel) {
  const slider = find("#channel");
  slider.value = channel;
  find("#plane").value = "channel";
  find("#channel-value").textContent = `${channel}: ${meta.frequencies[channel].toFixed(3)} MHz`;
  setPlane(String(channel));
}

function controls() {
  const planes = find("#plane");
  if (meta.frequencies && planes) {
    for (const plane of meta.planes) planes.add(new Option(plane.label, plane.id));
    planes.add(new Option("single channel", "channel"));
    const slider = find("#channel");
    slider.max = meta.frequencies.length - 1;
    slider.value = Math.floor(meta.frequencies.length / 2);
    slider.addEventListener("input", () => setChannel(Number(slider.value)));
    planes.addEventListener("change", () => {
      const at = Number(slider.dataset.source ?? -1);
      if (planes.value === "channel") setChannel(at >= 0 ? at : Number(slider.value));
      else { find("#channel-value").textContent = ""; setPlane(planes.value); }
    });
  }
  for (const name of ["#black", "#white"]) find(name).addEventListener("input", contrast);
  for (const name of ["#curve", "#colours"]) find(name).addEventListener("change", contrast);
  find("#rings").addEventListener("change", (event) => { viewer.marksOn = event.target.checked; viewer.redraw(); });
  for (const [name, act] of Object.entries({
    "#zoom-in": () => viewer.zoom(1.5), "#zoom-out": () => viewer.zoom(1 / 1.5), "#zoom-fit": () => viewer.fit(),
    "#zoom-one": () => viewer.look(viewer.x, viewer.y, viewer.ratio),
  })) find(name).addEventListener("click", act);
  find("#go").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch(`${page.address}/locate?q=${encodeURIComponent(find("#go input").value)}`);
    const place = await answer.json();
    if (!answer.ok) { say(place.error); return; }
    say("");
    viewer.look(place.x, place.y, Math.max(viewer.scale, 2 * viewer.ratio));
  });
}

function percent(value) {
  return `${value < 10 ? value.toPrecision(2) : Math.round(value).toLocaleString("en")}%`;
}

function tableControls() {
  let waiting = 0;
  const inView = find("#in-view");
  const follow = () => table.setView(inView.checked && viewer ? viewer.bounds : null);
  inView.addEventListener("change", follow);
  if (viewer) {
    viewer.events.view = () => {
      find("#zoom-value").textContent = percent((100 * viewer.scale) / viewer.ratio);
      if (!inView.checked) return;
      clearTimeout(waiting);
      waiting = setTimeout(follow, 150);
    };
  } else inView.parentElement.hidden = true;
  find("#clear").addEventListener("click", () => table.clear());
  find("#csv").addEventListener("click", () => {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(new Blob([table.csv()], { type: "text/csv" }));
    anchor.download = `observation_${page.observation}_run_${page.run}.csv`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
  });
}

function counted(shown, held, total) {
  const number = (value) => value.toLocaleString("en");
  const rows = held === 1 ? "row" : "rows";
  let text = shown === held ? `${number(held)} ${rows}` : `${number(shown)} of ${number(held)} ${rows}`;
  if (total > held) text += ` (the ${number(held)} of highest S/N; all ${number(total)} are in the catalogue file)`;
  find("#count").textContent = text;
}

async function start() {
  if (page.has_image) {
    const answer = await fetch(`${page.address}/view`);
    if (answer.ok) {
      meta = await answer.json();
      viewer = new Viewer(find("#viewer"), meta, page.address, {
        cursor: probe,
        click: (index, x, y) => {
          if (index >= 0) selected(index, "image");
          else if (meta.frequencies) spectrum(x, y, 1, `x ${x.toFixed(0)} y ${y.toFixed(0)}`);
        },
        step: (by) => table?.step(by),
      });
      controls();
      setPlane(meta.planes[0].id);
    } else say((await answer.json()).error);
  }
  if (page.run !== null) {
    const answer = await fetch(`${page.address}/sources.bin?run=${page.run}&v=${page.version}`);
    if (answer.ok) {
      sources = decode(await answer.arrayBuffer());
      table = new VirtualTable(find("#table"), sources, {
        chosen: (index) => selected(index, "table"),
        filtered: (mask) => viewer?.setSources(sources, mask),
        counted,
      });
      tableControls();
      const wanted = new URLSearchParams(location.search).get("source");
      if (wanted !== null) {
        const index = sources.row.indexOf(Number(wanted));
        if (index >= 0) selected(index, "link");
      }
    } else find("#count").textContent = (await answer.json()).error;
  }
  document.body.dataset.ready = "yes";
}

start().catch((error) => say(`this page cannot be filled: ${error.message}`));

// Charts come last: for a large image they wait for its overview.
async function charts() {
  const place = find("#charts");
  if (!place) return;
  const answer = await fetch(`${page.address}/charts?run=${page.run}`);
  if (answer.ok) {
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    place.replaceChildren(...parsed.body.children);
  } else place.querySelector("p").textContent = (await answer.json()).error;
  place.setAttribute("aria-busy", "false");
}

charts();

// For whoever wants to look at the page's numbers in the console, and for its tests.
window.skysift = { get viewer() { return viewer; }, get table() { return table; }, get sources() { return sources; } };
