"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const chosen = new Map();  // histograms: figure -> [run, layer]
  const hidden = new Map();  // curves: article -> methods that are switched off
  const close = new Set();   // articles whose curves are seen close up
  const touch = matchMedia("(pointer: coarse)").matches;

  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // "var(--c2) 20%" as a colour that Plotly knows
  function coloured(value, style) {
    if (Array.isArray(value)) return value.map((one) => coloured(one, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, style)]));
    }
    const found = typeof value === "string" && /^var\((--[\w-]+)\)(?: (\d+)%)?$/.exec(value);
    if (!found) return value;
    const colour = style.getPropertyValue(found[1]).trim();
    return found[2] ? colour + Math.round(2.55 * found[2]).toString(16).padStart(2, "0") : colour;
  }

  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/%\{/g, "%&#123;");

  function layoutOf(given, element) {
    const axis = {
      gridcolor: "var(--line)", linecolor: "var(--line)", zerolinecolor: "var(--line)", ticks: "", fixedrange: touch,
    };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: touch ? false : "zoom",
      font: { family: getComputedStyle(document.querySelector("h1")).fontFamily, size: 13, color: "var(--ink)" },
      hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--line)", font: { color: "var(--ink)", size: 13 }, align: "left" },
      width: element.clientWidth, ...given, margin: { l: 12, r: 14, t: 20, b: 40, ...given.margin },
    };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name)).concat("xaxis", "yaxis")) {
      layout[key] = { ...axis, ...layout[key] };
      const title = layout[key].title;
      if (title) layout[key].title = { font: { size: 13, color: "var(--muted)" }, standoff: 10, ...title };
    }
    return layout;
  }

  function figureOf(element) {
    const spec = specs[element.id];
    if (spec.histograms) return histogramsOf(spec.histograms, element);
    if (!spec.close) return spec;
    const article = element.closest("article").id;
    const off = hidden.get(article) || new Set();
    const data = spec.data.map((trace) => ({ ...trace, visible: !off.has(trace.meta) }));
    const near = close.has(article);
    const xaxis = { ...spec.layout.xaxis, ...(near && { range: spec.close.x }) };
    const yaxis = { ...spec.layout.yaxis, ...(near && { range: spec.close.y }) };
    const left = (note) => (near && note.x <= spec.close.x[0] ? { ...note, x: spec.close.x[0], xanchor: "left" } : note);
    const annotations = spec.layout.annotations.map(left);
    const height = element.clientWidth < 480 ? 290 : spec.layout.height;
    return { data, layout: { ...spec.layout, xaxis, yaxis, annotations, height, uirevision: near } };
  }

  function draw(element) {
    if (!specs[element.id] || !element.clientWidth) return;
    const { data, layout } = figureOf(element);
    const style = getComputedStyle(root);
    Plotly.react(element, coloured(data, style), coloured(layoutOf(layout, element), style), {
      displayModeBar: false, responsive: false, showTips: false,
    });
    element.style.minHeight = "";
  }

  const plots = [...document.querySelectorAll(".plot")];
  const drawAll = () => plots.forEach(draw);
  const drawIn = (element) => plots.filter((plot) => element.contains(plot)).forEach(draw);

  // one panel a moment, side by side where there is room, all on the scale of what lies beside zero
  function histogramsOf(runs, element) {
    const [run, name] = chosen.get(element.id);
    const layer = runs[run][name];
    const moments = Object.entries(layer.moments);
    const bins = moments[0][1].length;
    const middle = (bins - 1) / 2;
    const x = Array.from({ length: bins }, (_, bin) => layer.range * (bin / middle - 1));
    const columns = element.clientWidth > 820 ? moments.length : element.clientWidth > 520 ? 3 : 2;
    const rows = Math.ceil(moments.length / columns);
    const share = (count) => count / layer.weights;
    const top = 1.12 * Math.max(...moments.flatMap(([, counts]) => counts.filter((_, bin) => bin !== middle).map(share)));
    const layout = { height: 60 + 170 * rows, margin: { l: 8, r: 8, t: 28, b: 34 }, showlegend: false, bargap: 0, annotations: [] };
    const tick = Number((layer.range / 2).toPrecision(1));
    const gap = 0.03, space = 0.24 / rows;
    const data = moments.map(([moment, counts], index) => {
      const column = index % columns, row = Math.floor(index / columns), suffix = index ? index + 1 : "";
      const left = column / columns + (column ? gap / 2 : 0), right = (column + 1) / columns - gap / 2;
      const bottom = (rows - 1 - row) / rows + (rows > 1 && row < rows - 1 ? space : 0), up = (rows - row) / rows - (row ? 0.06 : 0);
      layout[`xaxis${suffix}`] = {
        domain: [left, right], anchor: `y${suffix}`, tickvals: [-tick, 0, tick], showgrid: false, zeroline: false, range: [x[0], x[bins - 1]], tickformat: "~g",
      };
      layout[`yaxis${suffix}`] = {
        domain: [bottom, up], anchor: `x${suffix}`, range: [0, top], showticklabels: false, showgrid: false, zeroline: false, showline: false,
      };
      layout.annotations.push({
        text: plain(moment), x: (left + right) / 2, y: up, xref: "paper", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false,
      });
      if (share(counts[middle]) > top) {
        layout.annotations.push({
          text: `${(100 * share(counts[middle])).toFixed(1)} % at 0`, x: x[middle + 4], y: 0.97 * top, xref: `x${suffix}`,
          yref: `y${suffix}`, xanchor: "left", yanchor: "top", showarrow: false, font: { size: 11, color: "var(--muted)" },
        });
      }
      return {
        type: "bar", x, y: counts.map(share), customdata: counts, xaxis: `x${suffix}`, yaxis: `y${suffix}`, name: moment,
        marker: { color: "var(--c2)", line: { width: 0 } },
        hovertemplate: `${plain(moment)}<br>around %{x:.3~g}: %{customdata:,} weights, %{y:.2%}<extra></extra>`,
      };
    });
    return { data, layout };
  }

  function choices(element) {
    const runs = specs[element.id].histograms;
    const [run, layer] = ["run", "layer"].map((what) => document.getElementById(element.id.replace("histograms", what)));
    const fill = (select, names) => select.replaceChildren(...names.map((name) => new Option(name, name)));
    const largest = (layers) => Object.keys(layers).reduce((a, b) => (layers[b].weights > layers[a].weights ? b : a));
    function changed() {
      const layers = runs[run.value], before = layer.value;
      fill(layer, Object.keys(layers));
      layer.value = before in layers ? before : largest(layers);
      chosen.set(element.id, [run.value, layer.value]);
    }
    fill(run, Object.keys(runs));
    run.value = Object.keys(runs).find((name) => name.startsWith("dsd")) || run.value;
    changed();
    for (const select of [run, layer]) select.addEventListener("change", () => { changed(); draw(element); });
  }

  document.querySelectorAll(".legend").forEach((legend) => legend.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const article = legend.closest("article").id;
    const off = hidden.get(article) || new Set();
    const shown = button.getAttribute("aria-pressed") === "true";
    shown ? off.add(button.dataset.method) : off.delete(button.dataset.method);
    hidden.set(article, off);
    button.setAttribute("aria-pressed", String(!shown));
    drawIn(legend.closest("section"));
  }));

  for (const box of document.querySelectorAll(".range input")) {
    const article = box.closest("article").id;
    const note = () => (box.checked ? close.add(article) : close.delete(article));
    note();
    box.addEventListener("change", () => { note(); drawIn(box.closest("section")); });
  }

  document.querySelectorAll("table.sortable").forEach((table) => table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (!heading) return;
    const upwards = heading.getAttribute("aria-sort") !== "ascending";
    const value = (row) => row.cells[heading.cellIndex].dataset.value;
    const text = (row) => row.cells[heading.cellIndex].textContent;
    const order = (a, b) => (value(a) !== undefined && value(b) !== undefined
      ? value(a) - value(b) : text(a).localeCompare(text(b), "en", { numeric: true }));
    const rows = [...table.tBodies[0].rows].sort((a, b) => (upwards ? order(a, b) : order(b, a)));
    table.tBodies[0].append(...rows);
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", upwards ? "ascending" : "descending");
  }));

  const folded = [...document.querySelectorAll("details")];
  for (const one of folded) one.addEventListener("toggle", () => window.Plotly && drawIn(one));

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = folded.filter((one) => !one.open);
    for (const one of opened) one.open = true;
    root.dataset.print = "";
    for (const plot of plots) plot.style.width = plot.closest(".pair") ? "310px" : "640px";
    drawAll();
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
    delete root.dataset.print;
    for (const plot of plots) plot.style.width = "";
    drawAll();
  });

  unpack().then(() => {
    document.querySelectorAll('.plot[id$="-histograms"]').forEach(choices);
    drawAll();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    let waiting, width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;  // a phone's address bar comes and goes
      width = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 120);
    });
    root.dataset.drawn = "";
  }).catch((error) => {
    console.error(error);
    for (const plot of plots) {
      plot.style.minHeight = "";
      plot.removeAttribute("role");
      plot.innerHTML = "<p>This browser cannot draw the plot; the table holds its numbers.</p>";
    }
  });
})();
