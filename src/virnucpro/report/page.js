// Draws what moves. Names reach the page as text nodes only.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Rows come as lists, which are small; everything below finds their fields by name.
for (const run of data.runs)
  for (const [table, names] of Object.entries(data.columns))
    run[table] = run[table].map((row) => Object.fromEntries(names.map((name, i) => [name, row[i]])));
const NAMES = { none: "not called", others: "others", virus: "virus" };
const COLOURS = { none: "url(#hatch)", others: "var(--others)", virus: "var(--virus)" };
const count = d3.format(",.0f");
const score = (p) => (p === null ? "–" : p.toFixed(3));
const PAGE_ROWS = 50;
// A window that is not laid out yet has no width; it is drawn again once it has.
const widthOf = (place) => Math.max(place.clientWidth, 240);

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

const press = (buttons, chosen) =>
  buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));

// Histogram of scores

function drawScores(section, run) {
  const place = section.querySelector('[data-plot="scores"]');
  if (!place) return () => {};
  const buttons = [...section.querySelectorAll("[data-of]")];
  let of = "chunks";
  const draw = () => {
    const bars = run.scores[of].virus.flatMap((virus, i) => {
      const others = run.scores[of].others[i];
      const part = { from: i / data.bins, to: (i + 1) / data.bins };
      return [
        { ...part, call: "others", low: 0, high: others, number: others },
        { ...part, call: "virus", low: others, high: others + virus, number: virus },
      ].filter((bar) => bar.number);
    });
    place.replaceChildren(
      Plot.plot({
        width: widthOf(place), height: 230, marginLeft: 52, marginBottom: 34, marginTop: 24,
        style: { fontSize: "12px" },
        x: { domain: [0, 1], label: "p_virus", labelAnchor: "center", labelArrow: "none" },
        y: { label: of, grid: true, nice: true, ticks: Math.min(4, d3.max(bars, (d) => d.high)), tickFormat: count, labelArrow: "none" },
        marks: [
          Plot.rect(bars, {
            x1: "from", x2: "to", y1: "low", y2: "high", fill: (d) => COLOURS[d.call],
            insetLeft: 0.5, insetRight: 0.5,
          }),
          Plot.ruleY([0]),
          cutOf(run, of) === null ? null : Plot.ruleX([cutOf(run, of)], { stroke: "var(--ink)", strokeDasharray: "3,3" }),
          Plot.tip(bars, Plot.pointerX({
            x: (d) => (d.from + d.to) / 2, y: "high", anchor: "bottom",
            title: (d) => `${d.from.toFixed(2)} to ${d.to.toFixed(2)}\n${count(d.number)} ${of} called ${d.call}`,
          })),
        ],
      }),
    );
  };
  for (const button of buttons)
    button.addEventListener("click", () => {
      of = button.dataset.of;
      press(buttons, button);
      draw();
    });
  return draw;
}

// Chunks along a record

function pointsOf(track) {
  return track.start.map((start, i) => {
    const p = track.score[i];
    const call = p === null ? "none" : track.group === 1 ? (track.viral[i] ? "virus" : "others") : null;
    return {
      i, start, end: track.end[i], p, call,
      high: track.high ? track.high[i] : null,
      viral: track.viral[i],
      called: track.called ? track.called[i] : null,
      chunks: track.count ? track.count[i] : 1,
      status: data.statuses[track.status[i]],
      frames: track.frames ? data.frames.filter((_, bit) => (track.frames[i] >> bit) & 1) : null,
      low: track.low ? track.low[i] : null,
    };
  });
}

const cutOf = (run, of) => (of === "chunks" ? run.chunk_threshold : run.threshold);

const fillOf = (run) => (d) =>
  COLOURS[d.call ?? (run.chunk_threshold !== null && d.p >= run.chunk_threshold ? "virus" : "others")];

function hatch() {
  const pattern = d3.create("svg:defs").append("pattern").attr("id", "hatch")
    .attr("width", 5).attr("height", 5).attr("patternUnits", "userSpaceOnUse").attr("patternTransform", "rotate(45)");
  pattern.append("rect").attr("width", 5).attr("height", 5).attr("fill", "var(--wash)");
  pattern.append("rect").attr("width", 2).attr("height", 5).attr("fill", "var(--none)");
  return pattern.node().parentNode;
}

function warningsOf(point, points, run) {
  const found = [];
  const length = point.end - point.start;
  if (point.chunks === 1 && run.validated !== null && length < run.validated)
    found.push(`Shorter than the ${run.validated} nt from which on calls were measured.`);
  else if (point.chunks === 1 && run.chunk !== null && length < 0.8 * run.chunk)
    found.push(`Short: the bundle was made for chunks of ${run.chunk} nt.`);
  if (point.low !== null && point.low >= 50) found.push(`${point.low} % are repeats of few letters.`);
  const beside = [points[point.i - 1], points[point.i + 1]].filter(Boolean);
  if (point.chunks === 1 && point.viral && beside.length && beside.every((d) => !d.viral))
    found.push("Alone: no neighbour was called virus.");
  return found;
}

function describe(place, point, points, run) {
  if (!point) {
    place.replaceChildren(make("dd", "Point at a chunk, or go from one to the next with the arrow keys.", { class: "whole" }));
    return;
  }
  const neighbour = (d) => (d ? score(d.p) : "none");
  const facts = point.chunks === 1
    ? [
        ["chunk", `${count(point.i + 1)} of ${count(points.length)}`],
        ["position, from 0", `${count(point.start)}–${count(point.end)}`],
        ["length", `${count(point.end - point.start)} nt`],
        ["p_virus", score(point.p)],
        ["call", point.call === "none" ? `not called: ${point.status}` : NAMES[point.call]],
        ["before, after", `${neighbour(points[point.i - 1])}, ${neighbour(points[point.i + 1])}`],
        ...(point.frames ? [["frames scored", point.frames.join(", ") || "none"]] : []),
      ]
    : [
        ["chunks together", count(point.chunks)],
        ["position, from 0", `${count(point.start)}–${count(point.end)}`],
        ["mean p_virus", score(point.p)],
        ["highest", score(point.high)],
        ["called virus", `${count(point.viral)} of ${count(point.called)}`],
        ["before, after", `${neighbour(points[point.i - 1])}, ${neighbour(points[point.i + 1])}`],
      ];
  const nodes = facts.map(([name, value]) => {
    const group = make("div");
    group.append(make("dt", name), make("dd", value));
    return group;
  });
  const warnings = warningsOf(point, points, run);
  if (warnings.length) nodes.push(make("dd", warnings.join(" "), { class: "whole beware" }));
  place.replaceChildren(...nodes);
}

function drawTracks(section, run) {
  const place = section.querySelector('[data-plot="track"]');
  if (!place) return { draw: () => {}, show: () => {} };
  const strip = section.querySelector('[data-plot="strip"]');
  const caption = section.querySelector('[data-part="caption"]');
  const chunk = section.querySelector('[data-part="chunk"]');
  const pick = section.querySelector(".pick");
  const fill = fillOf(run);
  const shared = { marginLeft: 52, marginRight: 12, style: { fontSize: "12px" } };
  let track, points, domain, current = null;

  const choose = (index) => {
    pick.value = String(index);
    track = run.tracks[index];
    points = pointsOf(track);
    domain = [0, track.length];
    current = null;
    draw();
  };

  const inside = () => {
    const [from, to] = domain;
    return points.filter((d) => d.end > from && d.start < to);
  };

  const drawTrack = () => {
    const seen = inside();
    const marked = current === null ? [] : [points[current]];
    const framed = track.frames !== null;
    const rows = framed ? seen.flatMap((d) => d.frames.map((frame) => ({ ...d, frame }))) : [];
    const figure = Plot.plot({
      ...shared, width: widthOf(place), height: 240, marginTop: 16, marginBottom: framed ? 8 : 36, clip: true,
      x: { domain, axis: framed ? null : "bottom", label: "position, nt", labelAnchor: "center", labelArrow: "none", tickFormat: count, ticks: Math.max(widthOf(place) / 130, 3) },
      y: { domain: [0, 1.13], ticks: [0, 0.5, 1], tickFormat: ".1f", label: "p_virus", labelArrow: "none", grid: true },
      marks: [
        hatch,
        Plot.rect(seen, {
          x1: "start", x2: "end", y1: 0, y2: (d) => (d.p === null ? 1 : d.p), fill,
          insetRight: seen.length * 5 < widthOf(place) ? 1 : 0,
        }),
        track.high ? Plot.tickY(seen.filter((d) => d.p !== null), { x: (d) => (d.start + d.end) / 2, y: "high", stroke: fill }) : null,
        Plot.rect(seen.filter((d) => d.low >= 50), { x1: "start", x2: "end", y1: 1.035, y2: 1.06, fill: "var(--low)" }),
        Plot.rect(track.regions, { x1: "0", x2: "1", y1: 1.08, y2: 1.12, fill: "var(--virus)" }),
        Plot.ruleY([0]),
        run.chunk_threshold === null ? null : Plot.ruleY([run.chunk_threshold], { stroke: "var(--ink)", strokeDasharray: "3,3" }),
        Plot.rect(marked, { x1: "start", x2: "end", y1: 0, y2: 1.02, stroke: "var(--ink)", strokeWidth: 1.5 }),
        Plot.rect(seen, Plot.pointerX({ x1: "start", x2: "end", y1: 0, y2: 1.02, stroke: "var(--ink)", strokeWidth: 1.5, maxRadius: 60 })),
      ],
    });
    figure.addEventListener("input", () => describe(chunk, figure.value ?? points[current ?? -1], points, run));
    figure.addEventListener("click", () => { if (figure.value) { current = figure.value.i; drawTrack(); } });
    const figures = [figure];
    if (framed)
      figures.push(Plot.plot({
        ...shared, width: widthOf(place), height: 118, marginTop: 2, marginBottom: 36, clip: true,
        x: { domain, label: "position, nt", labelAnchor: "center", labelArrow: "none", tickFormat: count, ticks: Math.max(widthOf(place) / 130, 3) },
        y: { domain: data.frames, label: null, tickSize: 0, padding: 0.25 },
        marks: [Plot.barX(rows, { x1: "start", x2: "end", y: "frame", fill, insetLeft: 0.5, insetRight: 0.5 })],
      }));
    place.replaceChildren(...figures);
    describe(chunk, points[current ?? -1], points, run);
  };

  const drawStrip = () => {
    const width = widthOf(strip);
    const figure = Plot.plot({
      ...shared, width, height: 44, marginTop: 4, marginBottom: 4,
      x: { domain: [0, track.length], axis: null }, y: { domain: [0, 1], axis: null },
      marks: [hatch, Plot.rect(points, { x1: "start", x2: "end", y1: 0, y2: (d) => d.p ?? 1, fill }), Plot.ruleY([0])],
    });
    const scale = figure.scale("x");
    const brush = d3.brushX().extent([[shared.marginLeft, 2], [width - shared.marginRight, 42]]).on("brush end", (event) => {
      if (!event.sourceEvent) return;
      domain = event.selection ? event.selection.map(scale.invert) : [0, track.length];
      drawTrack();
    });
    const group = d3.select(figure).append("g").call(brush);
    if (domain[0] > 0 || domain[1] < track.length) group.call(brush.move, domain.map(scale.apply));
    strip.replaceChildren(figure);
  };

  const draw = () => {
    if (!track) return choose(0);
    const together = track.group > 1 ? ` Each point stands for ${track.group} chunks: bar mean, tick highest p_virus.` : "";
    const of = run.samples.length > 1 ? `, sample ${track.sample}` : "";
    const regions = track.regions.slice(0, 10).map(([start, end, virus, called]) =>
      `${count(start)}–${count(end)} with ${count(virus)} of ${count(called)} chunks virus`);
    if (track.regions.length > 10) regions.push(`${track.regions.length - 10} more`);
    caption.replaceChildren(
      make("b", track.name),
      ` · record ${count(track.record)}${of} · ${count(track.length)} nt · called ${NAMES[data.calls[track.call]]}` +
        `${track.p === null ? "" : ` at ${score(track.p)}`} · ${count(track.virus)} of ${count(track.chunks)} chunks virus.` +
        `${regions.length ? ` Viral regions (from 0): ${regions.join(", ")}.` : ""}${together}`,
    );
    drawTrack();
    drawStrip();
  };

  const zoom = (factor) => {
    const [from, to] = domain;
    const width = factor === "all" ? track.length : Math.min((to - from) * Number(factor), track.length);
    const centre = current === null || factor === "all" ? (from + to) / 2 : (points[current].start + points[current].end) / 2;
    const start = Math.min(Math.max(centre - width / 2, 0), track.length - width);
    domain = [start, start + Math.max(width, Math.min(300, track.length))];
    drawTrack();
    drawStrip();
  };

  pick.addEventListener("change", () => choose(Number(pick.value)));
  for (const button of section.querySelectorAll("[data-step]")) button.hidden = run.tracks.length < 2;
  for (const button of section.querySelectorAll("[data-step]"))
    button.addEventListener("click", () => {
      const number = run.tracks.length;
      choose((Number(pick.value) + Number(button.dataset.step) + number) % number);
    });
  for (const button of section.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => zoom(button.dataset.zoom));
  place.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const first = points.findIndex((d) => d.end > domain[0]);
    current = current === null ? first : Math.min(Math.max(current + step, 0), points.length - 1);
    const [from, to] = domain;
    const { start, end } = points[current];
    if (start < from || end > to) {
      const left = Math.min(Math.max((start + end - (to - from)) / 2, 0), track.length - (to - from));
      domain = [left, left + (to - from)];
      drawStrip();
    }
    drawTrack();
  });
  return { draw, show: choose };
}

// Tables of records and of pairs

const any = (at) => (run, rows) => rows.some((row) => row[at] !== null && row[at] !== "");
const several = (run) => run.samples.length > 1;
const spaced = (words) => words.replaceAll("_", " ").replaceAll(",", ", ");
const mark = (kind, text) => [make("i", null, { class: `mark fill-${kind}` }), text];

function barred(p, kind) {
  const holder = make("span", null, { class: "score" });
  const line = make("i");
  const bar = make("b", null, { class: `fill-${kind}` });
  bar.style.width = `${100 * p}%`;
  line.append(bar);
  holder.append(line, score(p));
  return [holder];
}

function noted(notes) {
  const found = notes ? notes.split(",") : [];
  const low = found.includes("low_complexity") ? ["repeats of few letters"] : [];
  return [...low, ...found.filter((note) => note !== "low_complexity")];
}

// A name that is too long keeps its end, in which names of reads differ. A click opens it.
function shortened(name) {
  const letters = [...name]; // slices of a string would cut some letters in half
  if (letters.length <= 28) return name || "(no name)";
  const whole = make("span", null, { class: "shortened" });
  whole.append(make("span", letters.slice(0, -14).join("")), letters.slice(-14).join(""));
  whole.addEventListener("click", () => whole.classList.toggle("opened"));
  return whole;
}

function nameOf(row, run, show) {
  if (row.track === null) return [shortened(row.name)];
  const button = make("button", null, { type: "button", title: `${row.name}: show along its chunks` });
  button.append(shortened(row.name));
  button.addEventListener("click", () => show(row.track));
  return [button];
}

function mateOf(record, p, call) {
  if (record === null) return ["missing"];
  return mark(data.calls[call], p === null ? NAMES.none : score(p));
}

function notesOf(row, run) {
  const found = row.status === 0 ? [] : [data.statuses[row.status]];
  const low = row.low !== null && row.low >= 50 && !row.note.includes("low_complexity");
  found.push(...(low ? ["repeats of few letters"] : []), ...noted(row.note));
  if (row.status === 0 && run.chunk !== null && row.length_nt < 0.8 * run.chunk) found.push("short");
  return found.join(", ");
}

// Of each table: its rows, and what is drawn of them.
const TABLES = {
  records: {
    rows: (run) => run.rows,
    kind: (row) => NAMES[data.calls[row.call]],
    extent: (run, shown) => {
      const drawn = run.tracks.length ? " Those whose names are underlined can be drawn along their chunks." : "";
      if (shown < run.records)
        return `The ${count(shown)} records of the highest p_virus, of ${count(run.records)}. contigs.tsv has all of them.${drawn}`;
      return (run.records === 1 ? "" : `All ${count(run.records)} records.`) + drawn;
    },
    none: "No record fits.",
    columns: [
      { name: "sample", at: "sample", up: true, when: several, text: (row, run) => run.samples[row.sample], class: "text" },
      { name: "record", at: "record", up: true, class: "more", text: (row) => count(row.record) },
      { name: "name", at: "name", up: true, class: "name", nodes: nameOf },
      { name: "length, nt", at: "length_nt", text: (row) => count(row.length_nt) },
      { name: "chunks", at: "chunks", class: "more", text: (row) => count(row.chunks) },
      { name: "virus chunks", at: "virus_chunks", class: "more", text: (row) => count(row.virus_chunks) },
      { name: "p_virus", at: "p_virus", nodes: (row) => (row.p_virus === null ? ["–"] : barred(row.p_virus, data.calls[row.call])) },
      { name: "highest", at: "max_p_virus", when: (run, rows) => !any("probability")(run, rows), class: "more", text: (row) => score(row.max_p_virus) },
      { name: "probability", at: "probability", when: any("probability"), class: "more", text: (row) => score(row.probability) },
      { name: "q_value", at: "q_value", when: (run, rows) => run.threshold === null && any("q_value")(run, rows), class: "more", text: (row) => score(row.q_value) },
      { name: "call", at: "call", class: "text", nodes: (row) => mark(data.calls[row.call], NAMES[data.calls[row.call]]) },
      { name: "origin", at: "origin", when: any("origin"), class: "text more", text: (row) => spaced(row.origin) },
      { name: "note", at: "status", class: "text beware", text: notesOf },
    ],
  },
  pairs: {
    rows: (run) => run.pairs,
    kind: (row) => data.mates[row.agreement],
    extent: (run, shown) => (shown < run.virus_pairs
      ? `The ${count(shown)} pairs of the highest p_virus, of ${count(run.virus_pairs)} called virus. pairs.tsv has all of them.`
      : run.virus_pairs === 1 ? "" : `All ${count(run.virus_pairs)} pairs called virus.`),
    none: "No pair fits.",
    columns: [
      { name: "sample", at: "sample", up: true, when: several, text: (row, run) => run.samples[row.sample], class: "text" },
      { name: "records", at: "record_1", up: true, class: "more", text: (row) => [row.record_1, row.record_2].filter(Boolean).map(count).join(" and ") },
      { name: "name", at: "name", up: true, class: "name", nodes: (row) => [shortened(row.name)] },
      { name: "p_virus", at: "p_virus", nodes: (row) => barred(row.p_virus, "virus") },
      { name: "mate 1", at: "p_virus_1", nodes: (row) => mateOf(row.record_1, row.p_virus_1, row.call_1) },
      { name: "mate 2", at: "p_virus_2", nodes: (row) => mateOf(row.record_2, row.p_virus_2, row.call_2) },
      { name: "mates", at: "agreement", class: "text", text: (row) => data.mates[row.agreement] },
      { name: "origin", at: "origin", when: any("origin"), class: "text more", text: (row) => spaced(row.origin) },
      { name: "note", at: "note", when: any("note"), class: "text beware", text: (row) => noted(row.note).join(", ") },
    ],
  },
};

function drawTable(section, run, show) {
  const { rows: rowsOf, kind, extent, none, columns: all } = TABLES[section.dataset.table];
  const rows = rowsOf(run);
  const table = section.querySelector("table");
  const columns = all.filter((column) => !column.when || column.when(run, rows));
  const search = section.querySelector('input[type="search"]');
  const buttons = [...section.querySelectorAll("[data-call]")];
  const [back, forth] = section.querySelectorAll("[data-page]");
  const part = (of) => section.querySelector(`[data-part="${of}"]`);
  const names = rows.map((row) => row.name.toLowerCase());
  let sort = { at: "p_virus", down: true }, chosen = "all", page = 0, kept = [];

  part("extent").textContent = extent(run, rows.length);

  const order = (a, b) => {
    const [x, y] = [rows[a][sort.at], rows[b][sort.at]];
    if (x === y) return a - b;
    if (x === null) return 1;
    if (y === null) return -1;
    return (x < y ? -1 : 1) * (sort.down ? -1 : 1);
  };

  const choose = () => {
    const wanted = search.value.trim().toLowerCase();
    kept = d3.range(rows.length)
      .filter((i) => (chosen === "all" || kind(rows[i]) === chosen) && names[i].includes(wanted))
      .sort(order);
    page = 0;
    draw();
  };

  const head = () => {
    const row = make("tr");
    for (const column of columns) {
      const cell = make("th", null, { scope: "col", class: column.class ?? "" });
      const sorted = sort.at === column.at;
      if (sorted) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      const button = make("button", `${column.name}${sorted ? (sort.down ? " ↓" : " ↑") : ""}`, { type: "button" });
      button.addEventListener("click", () => {
        sort = { at: column.at, down: sorted ? !sort.down : !column.up };
        choose();
        table.querySelector("[aria-sort] button").focus();
      });
      cell.append(button);
      row.append(cell);
    }
    table.tHead.replaceChildren(row);
  };

  const cell = (column, row) => {
    const place = make("td", null, { class: column.class ?? "" });
    if (column.class === "name") place.title = row.name;
    place.append(...(column.nodes ? column.nodes(row, run, show) : [column.text(row, run)]));
    return place;
  };

  const draw = () => {
    head();
    const pages = Math.max(Math.ceil(kept.length / PAGE_ROWS), 1);
    const first = page * PAGE_ROWS;
    const shown = kept.slice(first, first + PAGE_ROWS);
    table.tBodies[0].replaceChildren(
      ...shown.map((i) => {
        const row = make("tr");
        row.append(...columns.map((column) => cell(column, rows[i])));
        return row;
      }),
    );
    part("found").textContent = kept.length === rows.length ? "" : `${count(kept.length)} found`;
    part("page").textContent = kept.length ? `${count(first + 1)} to ${count(first + shown.length)} of ${count(kept.length)}` : none;
    back.disabled = page === 0;
    forth.disabled = page >= pages - 1;
    back.hidden = forth.hidden = pages === 1;
  };

  search.addEventListener("input", choose);
  for (const button of buttons)
    button.addEventListener("click", () => {
      chosen = button.dataset.call;
      press(buttons, button);
      choose();
    });
  for (const button of [back, forth])
    button.addEventListener("click", () => {
      page += Number(button.dataset.page);
      draw();
    });
  return choose;
}

// The page

const sections = [...document.querySelectorAll("[data-run]")];
const redraws = sections.map((section) => {
  const run = data.runs[Number(section.dataset.run)];
  const scores = drawScores(section, run);
  const tracks = drawTracks(section, run);
  const show = (track) => {
    tracks.show(track);
    section.querySelector(".tracks").scrollIntoView({ block: "start" });
  };
  const tables = [...section.querySelectorAll("[data-table]")].map((place) => drawTable(place, run, show));
  return { figures: () => { scores(); tracks.draw(); }, tables: () => tables.forEach((draw) => draw()) };
});

const chosen = document.getElementById("choose-run");
const visible = new Set();
function show() {
  const number = chosen ? Number(chosen.value) : 0;
  sections.forEach((section, i) => { section.hidden = i !== number; });
  redraws[number].figures();
  if (!visible.has(number)) redraws[number].tables();
  visible.add(number);
}
if (chosen) chosen.addEventListener("change", show);
show();

let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  show();
});

for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    const place = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(place.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(place);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
