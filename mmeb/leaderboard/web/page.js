const source = atob(document.getElementById("datatables").textContent);
const address = URL.createObjectURL(new Blob([Uint8Array.from(source, c => c.charCodeAt(0))], {type: "text/javascript"}));
const {default: DataTable} = await import(address);
URL.revokeObjectURL(address);

const {groups, tasks, models, kinds} = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const short = (text, length) => [...text].length > length ? [...text].slice(0, length - 1).join("") + "…" : text;
const COLOURS = ["#3b7dd8", "#e07b2a", "#2a9d6f", "#c2549d", "#8a63d2", "#b59a1c"];
const MAX_SELECTED = 6, FIXED = 5;
const selected = new Map();  // model id to its colour
for (const model of models.filter(m => !m.stated).slice(0, 3)) selected.set(model.id, COLOURS[selected.size]);

/* The table */
const best = groups.map((_, g) => Math.max(...models.map(m => m.means[g] ?? -1)));
const bestTask = tasks.map((_, t) => Math.max(...models.map(m => m.scores[t] ?? -1)));
const number = value => value === null ? "" : value.toFixed(1);

function groupCell(model, g) {
  if (model.means[g] !== null)
    return `<span class="${model.means[g] === best[g] ? "best" : ""}">${model.shown[g]}</span>`;
  if (model.stated) return model.stated[g] === null ? "" : `<span class="stated">${number(model.stated[g])}</span>`;
  return `<span class="part">${model.done[g]}/${groups[g].size}</span>`;
}

function modelCell(model) {
  const name = `<bdi>${escape(model.name)}</bdi>`;
  const linked = model.url ? `<a href="${escape(model.url)}" rel="noopener nofollow">${name}</a>` : name;
  const flag = model.problems.length ? ["warn", "⚠", "What does not add up in"] : ["", "i", "About"];
  return `${linked}&nbsp;<button type="button" class="info ${flag[0]}" data-model="${model.id}"
    aria-label="${flag[2]} ${escape(model.name)}">${flag[1]}</button>`;
}

const by = (sorted, display, filtered = sorted) => (_, type, model) =>
  (type === "display" ? display : type === "filter" ? filtered : sorted)(model);
const columns = [
  {title: "Compare", orderable: false, className: "dt-center picker", render: by(() => "", m =>
    `<input type="checkbox" class="pick" data-model="${m.id}" ${selected.has(m.id) ? "checked" : ""}
      aria-label="Compare ${escape(m.name)}">`)},
  {title: "#", type: "num", className: "number roomy", render: by(m => m.place ?? 1e9, m => m.place ?? "")},
  {title: "Model", className: "model", render: by(m => m.name, modelCell, m => escape(m.name))},
  {title: "Source", className: "roomy", render: by(m => m.kind, m => `<span class="badge ${m.kind}">${m.kind}</span>`)},
  {title: "Size (B)", type: "num", className: "number roomy",
    render: by(m => m.size ?? -1, m => m.size ? Number(m.size.toPrecision(3)) : "")},
  ...groups.map((group, g) => ({title: group.title, type: "num", className: "number", orderSequence: ["desc", "asc", ""],
    render: by(m => m.means[g] ?? m.stated?.[g] ?? -1, m => groupCell(m, g))})),
  ...tasks.map((task, t) => ({title: task.name, type: "num", className: "number", orderSequence: ["desc", "asc", ""],
    visible: false, render: by(m => m.scores[t] ?? -1, m => m.scores[t] === bestTask[t]
      ? `<span class="best">${number(m.scores[t])}</span>` : number(m.scores[t]))})),
].map(column => ({data: null, ...column}));

const metas = [...new Set(tasks.map(task => task.meta))];
const groupIndex = key => groups.findIndex(group => group.key === key);
const members = test => tasks.flatMap((task, t) => test(task) ? [FIXED + groups.length + t] : []);
const views = {
  "Averages": groups.map((_, g) => FIXED + g),
  ...Object.fromEntries(metas.map(meta => [groups[groupIndex(meta)].title,
    [FIXED + groupIndex(meta), ...members(task => task.meta === meta)]])),
  "IND": [FIXED + groupIndex("ind"), ...members(task => task.ind)],
  "OOD": [FIXED + groupIndex("ood"), ...members(task => !task.ind)],
  "All 36": [FIXED, ...members(() => true)],
};

const table = new DataTable("#board", {
  data: models, columns, order: [[FIXED, "desc"]], pageLength: 50, lengthMenu: [20, 50, 100, {label: "all", value: -1}],
  autoWidth: false, deferRender: true,
  layout: {topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: "paging"},
  language: {search: "Filter", searchPlaceholder: "model, source …", lengthMenu: "Rows _MENU_"},
});
const wrap = document.createElement("div");
wrap.className = "scroll tablewrap";
wrap.tabIndex = 0;
wrap.setAttribute("role", "region");
wrap.setAttribute("aria-label", "Models and scores, scrollable");
$("board").replaceWith(wrap);
wrap.append(table.table().node());

function pressed(parent, names, start, action) {
  for (const name of names) {
    const button = Object.assign(document.createElement("button"), {type: "button", className: "button", textContent: name});
    button.setAttribute("aria-pressed", String(name === start));
    button.addEventListener("click", () => {
      for (const other of parent.children) other.setAttribute("aria-pressed", String(other === button));
      action(name);
    });
    parent.append(button);
  }
}

pressed($("views"), Object.keys(views), "Averages", name => {
  const shown = new Set(views[name]);
  const scores = columns.map((_, c) => c).filter(c => c >= FIXED);
  table.columns(scores.filter(c => !shown.has(c))).visible(false, false);
  table.columns([...shown]).visible(true, false);
  table.order([views[name][0], "desc"]).draw();
});

const hiddenKinds = new Set();
const rowKind = model => model.stated ? "averages only" : model.kind;
for (const kind of kinds) {
  const count = models.filter(model => rowKind(model) === kind).length;
  const button = Object.assign(document.createElement("button"),
    {type: "button", className: "button", textContent: `${kind} (${count})`});
  button.dataset.kind = kind;
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => {
    if (!hiddenKinds.delete(kind)) hiddenKinds.add(kind);
    button.setAttribute("aria-pressed", String(!hiddenKinds.has(kind)));
    table.draw();
  });
  $("kinds").append(button);
}
table.search.fixed("kind", (_, model) => !hiddenKinds.has(rowKind(model)));

wrap.addEventListener("change", event => {
  if (event.target.matches(".pick")) choose(Number(event.target.dataset.model), event.target.checked);
});
wrap.addEventListener("click", event => {
  const button = event.target.closest(".info");
  if (button) about(models[Number(button.dataset.model)]);
});

function about(model) {
  const facts = [["Source", model.origin || model.kind], ["Backbone", model.backbone], ["Size", model.size && `${model.size} B`],
    ["Tasks", `${model.done[0]} of ${tasks.length}`], ["Link", model.url]];
  $("about-title").textContent = model.name;
  const list = $("about").querySelector("dl");
  list.replaceChildren(...facts.filter(([, value]) => value).flatMap(([term, value]) => [
    Object.assign(document.createElement("dt"), {textContent: term}),
    Object.assign(document.createElement("dd"), {textContent: value})]));
  $("about-problems").innerHTML = model.problems.length
    ? `<p class="banner">⚠ What does not add up</p><ul>${model.problems.map(p => `<li>${escape(p)}</li>`).join("")}</ul>` : "";
  $("about").showModal();
}

/* Charts; their library is a megabyte or five and waits until the first of them comes into view. */
function loadPlotly() {
  if (window.Plotly) return;
  document.head.append(Object.assign(document.createElement("script"), {textContent: $("plotly").textContent}));
}
const bars = {displaylogo: false, responsive: true, modeBarButtons: [["toImage"]]};
const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const look = extra => ({
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
  font: {color: ink("--ink"), family: 'system-ui, "Segoe UI", sans-serif', size: 13},
  hoverlabel: {bgcolor: ink("--card"), bordercolor: ink("--line"), font: {color: ink("--ink")}},
  modebar: {bgcolor: "rgba(0,0,0,0)", color: ink("--line"), activecolor: ink("--accent")},
  margin: {l: 50, r: 20, t: 20, b: 50}, ...extra,
});
const axis = extra => ({gridcolor: ink("--line"), linecolor: ink("--line"), zerolinecolor: ink("--line"), fixedrange: true,
  automargin: true, ...extra});
const narrow = () => window.innerWidth < 700;
function draw(id, traces, layout, options, empty) {
  $(id).classList.toggle("empty", !traces.length);
  if (traces.length) {
    if (!$(id).data) $(id).textContent = "";
    return Plotly.react(id, traces, layout, options);
  }
  Plotly.purge(id);
  $(id).textContent = empty;
}
const value = (model, g) => model.means[g] ?? model.stated?.[g] ?? null;

function choose(id, on) {
  if (on && selected.size >= MAX_SELECTED) choose(selected.keys().next().value, false);
  if (on) selected.set(id, COLOURS.find(colour => ![...selected.values()].includes(colour)));
  else selected.delete(id);
  table.row(id).invalidate();
  compare.draw();
}

const compare = {view: "Averages", draw() {
  loadPlotly();
  const picked = [...selected].map(([id, colour]) => ({...models[id], colour}));
  $("selected").replaceChildren(...picked.map(model => {
    const item = document.createElement("li");
    item.innerHTML = `<i style="background:${model.colour}"></i><bdi>${escape(model.name)}</bdi>
      <button type="button" aria-label="Remove ${escape(model.name)}">×</button>`;
    item.querySelector("button").addEventListener("click", () => choose(model.id, false));
    return item;
  }));
  if (compare.view === "Averages") compare.radar(picked); else compare.dots(picked);
  compare.table(picked);
}, radar(picked) {
  const shown = groups.map((_, g) => g).filter(g => groups[g].key !== "overall");
  const angles = shown.map(g => groups[g].title);
  const traces = picked.map(model => {
    const radii = shown.map(g => value(model, g));
    return {type: "scatterpolar", name: escape(short(model.name, 48)), theta: [...angles, angles[0]], r: [...radii, radii[0]],
      connectgaps: true, line: {color: model.colour, width: 2.5, dash: model.stated ? "dot" : "solid"},
      marker: {color: model.colour, size: 7}, hovertemplate: "%{theta}: %{r:.1f}<extra>%{fullData.name}</extra>"};
  });
  draw("compare-chart", traces.filter(trace => trace.r.some(mean => mean !== null)), look({
    height: narrow() ? 340 : 460, margin: {l: 60, r: 60, t: 40, b: 40}, showlegend: false,
    polar: {bgcolor: "rgba(0,0,0,0)", angularaxis: {gridcolor: ink("--line"), linecolor: ink("--line")},
      radialaxis: {range: [0, 100], gridcolor: ink("--line"), linecolor: ink("--line"), angle: 90, tickangle: 90}},
  }), bars, picked.length ? "No selected model has all tasks of a group: see 36 tasks." : "No model is selected.");
}, dots(picked) {
  const traces = picked.map(model => ({
    type: "scatter", mode: "markers", name: escape(short(model.name, 48)), y: tasks.map(task => task.name),
    x: model.scores, marker: {color: model.colour, size: 10, opacity: 0.9}, hovertemplate: "%{y}: %{x:.1f}<extra>%{fullData.name}</extra>",
  }));
  draw("compare-chart", traces, look({
    height: 80 + 22 * tasks.length, showlegend: false,
    xaxis: axis({range: [0, 100], side: "top"}), yaxis: axis({autorange: "reversed", dtick: 1, tickfont: {size: 12}}),
    margin: {l: 50, r: 20, t: 40, b: 20},
  }), bars, "No model is selected.");
}, table(picked) {
  const cells = values => {
    const top = Math.max(...values.map(v => v ?? -1));
    return values.map(v => `<td class="${v !== null && v === top && values.length > 1 ? "best" : ""}">${v === null ? "–"
      : v.toFixed(1)}</td>`).join("");
  };
  const line = (title, values) => `<tr><th scope="row">${escape(title)}</th>${cells(values)}</tr>`;
  const head = `<thead><tr><th></th>${picked.map(m => `<th scope="col"><bdi>${escape(m.name)}</bdi></th>`).join("")}</tr></thead>`;
  const means = groups.map((group, g) => line(group.title, picked.map(m => m.means[g] !== null ? Number(m.shown[g])
    : m.stated?.[g] ?? null)));
  const rows = metas.map(meta => `<tr class="subhead"><th colspan="${picked.length + 1}">${escape(
    groups[groupIndex(meta)].title)}</th></tr>` + tasks.map((task, t) => task.meta === meta
    ? line(task.name, picked.map(m => m.scores[t])) : "").join(""));
  $("compare-table").innerHTML = head + "<tbody>" + means.join("") + rows.join("") + "</tbody>";
}};
pressed($("compare-views"), ["Averages", "36 tasks"], "Averages", view => { compare.view = view; compare.draw(); });

const heat = {page: 0, rows: 40, draw() {
  loadPlotly();
  const scored = table.rows({order: "applied", search: "applied"}).data().toArray().filter(m => m.done[0] > 0);
  heat.page = Math.max(0, Math.min(heat.page, Math.ceil(scored.length / heat.rows) - 1));
  const first = heat.page * heat.rows, rows = scored.slice(first, first + heat.rows);
  $("heat-count").textContent = scored.length ? `${first + 1} to ${first + rows.length} of ${scored.length} models` : "no models";
  $("heat-back").hidden = $("heat-on").hidden = scored.length <= heat.rows;
  $("heat-back").disabled = first === 0;
  $("heat-on").disabled = first + rows.length >= scored.length;
  const order = tasks.map((_, t) => t);
  const length = narrow() ? 18 : 34;
  draw("heat-chart", !rows.length ? [] : [{
    type: "heatmap", z: rows.map(m => order.map(t => m.scores[t])), x: order.map(t => tasks[t].name), y: rows.map((_, r) => r),
    customdata: rows.map(m => order.map(() => escape(m.name))), colorscale: ["low", "mid", "high"].map((end, i) => [i / 2, ink(`--heat-${end}`)]), zmin: 0, zmax: 100, xgap: 1, ygap: 1,
    hoverongaps: false, texttemplate: "%{z:.0f}", textfont: {size: 11, color: ink("--ink")},
    hovertemplate: "%{customdata}<br>%{x}: %{z:.1f}<extra></extra>", colorbar: {thickness: 12, outlinewidth: 0},
  }], look({
    width: Math.max(1080, $("heat").clientWidth - 42), height: 170 + 24 * rows.length,
    xaxis: axis({side: "top", tickangle: -60, tickfont: {size: 11}, showgrid: false}),
    yaxis: axis({autorange: "reversed", tickvals: rows.map((_, r) => r), ticktext: rows.map(m => escape(short(m.name, length))),
      tickfont: {size: 11}, showgrid: false, zeroline: false}),
    shapes: tasks.flatMap((task, t) => t && task.meta !== tasks[t - 1].meta ? [{type: "line", x0: t - 0.5, x1: t - 0.5, y0: 0,
      y1: 1, yref: "paper", line: {color: ink("--card"), width: 5}}] : []),
    margin: {l: 60, r: 10, t: 110, b: 10},
  }), {...bars, responsive: false}, "No model in the table has scores by task.");
}};
$("heat-back").addEventListener("click", () => { heat.page--; heat.draw(); });
$("heat-on").addEventListener("click", () => { heat.page++; heat.draw(); });

const size = {group: 0, draw() {
  loadPlotly();
  const sized = models.filter(m => m.size && value(m, size.group) !== null);
  let top = -1;
  const frontier = sized.filter(m => !m.problems.length).sort((a, b) => a.size - b.size || value(b, size.group) - value(a, size.group))
    .filter(m => value(m, size.group) > top && (top = value(m, size.group)) >= 0);
  const crowded = i => [i - 1, i + 1].some(j => frontier[j]
    && Math.abs(value(frontier[j], size.group) - value(frontier[i], size.group)) < 5);
  const below = new Set(frontier.filter((m, i) => i % 2 === 0 && m.size <= 3 && crowded(i)));
  const labelled = narrow() || sized.length > 80 ? new Set() : new Set(frontier);
  const mark = {verified: "#2a9d6f", "self-reported": "#e07b2a", published: "#3b7dd8"};
  const line = {type: "scatter", mode: "lines", x: frontier.map(m => m.size), y: frontier.map(m => value(m, size.group)),
    line: {color: ink("--soft"), width: 1, dash: "dot", shape: "hv"}, hoverinfo: "skip", showlegend: false};
  const traces = [...new Set(sized.map(m => m.kind))].map(kind => {
    const points = sized.filter(m => m.kind === kind);
    return {type: "scatter", mode: "markers+text", name: kind, x: points.map(m => m.size),
      y: points.map(m => value(m, size.group)), text: points.map(m => labelled.has(m) ? escape(short(m.name, 30)) : ""),
      textposition: points.map(m => below.has(m) ? "bottom right" : "top left"), textfont: {size: 11}, cliponaxis: false,
      customdata: points.map(m => escape(m.name)),
      hovertemplate: "%{customdata}<br>%{x} B: %{y:.1f}<extra></extra>",
      marker: {size: 11, color: mark[kind], line: {color: mark[kind], width: 2},
        symbol: points.map(m => m.means[size.group] === null ? "circle-open" : "circle")}};
  });
  draw("size-chart", sized.length ? [line, ...traces] : [], look({
    height: 480, legend: {orientation: "h", y: -0.18}, yaxis: axis({title: {text: groups[size.group].title}, ticksuffix: " "}),
    xaxis: axis({type: "log", title: {text: "parameters, billions"}, tickvals: [-4, -3, -2, -1, 0, 1, 2, 3].flatMap(e => [10 ** e, 2 * 10 ** e, 5 * 10 ** e])}),
  }), bars, "No model has both a size and this average.");
}};
$("size-group").append(...groups.map((group, g) => new Option(group.title, g)));
$("size-group").addEventListener("change", event => { size.group = Number(event.target.value); size.draw(); });

/* Each chart is drawn when it comes into view, and again when what it shows has changed. */
const charts = {compare, heat, size}, seen = new Set();
const redraw = () => seen.forEach(name => charts[name].draw());
const watcher = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting || seen.has(target.id)) continue;
    seen.add(target.id);
    charts[target.id].draw();
  }
}, {rootMargin: "200px"});
Object.keys(charts).forEach(name => watcher.observe($(name)));
table.on("draw", () => { if (seen.has("heat")) heat.draw(); });
let pause;
window.addEventListener("resize", () => { clearTimeout(pause); pause = setTimeout(redraw, 200); });

/* Light and dark */
const system = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["system", "light", "dark"];
function applyTheme(theme) {
  document.documentElement.dataset.choice = theme;
  document.documentElement.classList.toggle("dark", theme === "dark" || (theme === "system" && system.matches));
  $("theme").textContent = `Theme: ${theme}`;
  redraw();
}
$("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.choice) + 1) % THEMES.length];
  try { localStorage.setItem("theme", theme); } catch { /* a page from disk may have no storage */ }
  applyTheme(theme);
});
system.addEventListener("change", () => applyTheme(document.documentElement.dataset.choice));
applyTheme(document.documentElement.dataset.choice);
document.documentElement.dataset.ready = "yes";
