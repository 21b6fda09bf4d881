"use strict";
// Asks for figures, and draws them. All that is shown of them is text: nothing here
// makes markup.
(() => {
  const EVERY_MS = 5000;
  const PATIENCE_MS = 4500;
  const SPANS_MS = [5, 15, 30, 60].map((minutes) => minutes * 60_000);
  // Without the key that the address of the page may bring: a browser asks for nothing with it.
  const FIGURES = new URL("figures", location.origin + location.pathname);
  const SVG = "http://www.w3.org/2000/svg";
  const REST = "other";
  const FILLING = 0.75;
  const FULL = 0.9;

  // ---- numbers, as `top` writes them ----------------------------------------------

  const digits = (number) => {
    const text = number.toFixed(number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2);
    if (number > 0 && !/[1-9]/.test(text)) return "<0.01";
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  };
  const scaled = (number, step, units) => {
    let unit = 0;
    while (unit < units.length - 1 && number >= step - 0.5) {
      number /= step;
      unit += 1;
    }
    return (number >= step ? ">" + (step - 1) : digits(number)) + units[unit];
  };
  const UNITS = {
    count: (n) => scaled(n, 1000, ["", "k", "M", "G", "T", "P", "E"]),
    bytes: (n) => scaled(n, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"]),
    // Rounded down, so that 100 % is all and nothing less.
    ratio: (n) => {
      const tenths = Math.floor(Math.min(n, 999.9) * 1000 + 1e-9);
      return tenths % 10 === 0 || tenths >= 1000 ? Math.floor(tenths / 10) + " %" : (tenths / 10).toFixed(1) + " %";
    },
    ms: (n) => (n < 999.5 ? digits(n) + " ms" : n < 99_950 ? digits(n / 1000) + " s" : n < 5_999_500 ? digits(n / 60_000) + " min" : ">99 min"),
  };
  const isNumber = (n) => typeof n === "number" && Number.isFinite(n) && n >= 0;
  const write = (unit, n) => (isNumber(n) ? UNITS[unit](n) : "–");
  const span = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    const pair = (large, a, small, b) => large + a + (small ? " " + small + b : "");
    if (s < 60) return s + "s";
    if (s < 3600) return pair(Math.floor(s / 60), "m", s % 60, "s");
    if (s < 86_400) return pair(Math.floor(s / 3600), "h", Math.floor(s / 60) % 60, "m");
    return pair(Math.floor(s / 86_400), "d", Math.floor(s / 3600) % 24, "h");
  };
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

  // ---- elements --------------------------------------------------------------------

  const byId = (id) => document.getElementById(id);
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (name, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const tell = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const text = (value) => (typeof value === "string" ? value : "");
  const rows = (value) => (Array.isArray(value) ? value : []);

  // ---- plots -----------------------------------------------------------------------

  const PLOTS = [
    { title: "Calls per second", unit: "count", lines: [["calls_per_second", "calls/s"]] },
    { title: "Errors per second", unit: "count", lines: [["errors_per_second", "errors/s"]], troubles: true },
    { title: "Reads that hit", unit: "ratio", lines: [["hit_ratio", "all hits"], ["near_hit_ratio", "near"]] },
    { title: "Time of calls", unit: "ms", lines: [["p99_ms", "p99"], ["p50_ms", "p50"], ["store_p99_ms", "store p99"]] },
    { title: "Load", unit: "count", lines: [["in_flight", "in flight"], ["connections", "connections"]] },
    { title: "Memory", unit: "bytes", lines: [["rss_bytes", "process"], ["near_bytes", "near cache"]] },
  ];
  const LEFT = 58;
  const RIGHT = 8;
  const TOP = 8;
  const BOTTOM = 20;
  const HEIGHT = 168;

  // The least round number that is not below: what the axis ends with.
  const round = (unit, most) => {
    if (unit === "ratio") return 1;
    if (!(most > 0)) return 1;
    let base = 1;
    if (unit === "bytes") while (most / base >= 1024 && base < 2 ** 60) base *= 1024;
    const power = 10 ** Math.floor(Math.log10(most / base));
    const step = [1, 2, 4, 5, 10].find((step) => most / base <= step * power * (1 + 1e-9)) ?? 10;
    return step * power * base;
  };

  let times = [];
  let series = {};
  let at = null; // the point the crosshair is on, in all plots
  let ends = [0, SPANS_MS.at(-1)];

  const plots = PLOTS.map((plot, number) => {
    const id = "plot-" + number;
    const values = plot.lines.map(() => make("dd", {}, "–"));
    const swatch = (n) => draw("svg", { class: "swatch", viewBox: "0 0 18 8", "aria-hidden": "true" }, draw("path", { class: "line s" + (n + 1), d: "M1 4H17" }));
    const legend = make("dl", {},
      ...plot.lines.map(([, name], n) => make("div", {}, make("dt", {}, swatch(n), name), values[n])));
    const grid = draw("g", { class: "grid" });
    const area = draw("path", { class: "area s1" });
    const paths = plot.lines.map((_, n) => draw("path", { class: "line s" + (n + 1) }));
    const hair = draw("line", { class: "hair", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    const dots = plot.lines.map((_, n) => draw("circle", { class: "s" + (n + 1), r: 4, visibility: "hidden" }));
    const none = draw("text", { class: "none", y: HEIGHT / 2, visibility: "hidden" }, "nothing yet");
    const chart = draw("svg", { class: "chart", id, role: "slider", tabindex: "0", "aria-label": plot.title, "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0", "aria-orientation": "horizontal" },
      grid, area, ...[...paths].reverse(), hair, ...dots, none);
    const tip = make("div", { class: "tip", "aria-hidden": "true", hidden: "" });
    const card = make("div", { class: "plot" }, make("h3", {}, plot.title), legend, chart, tip);
    byId("plots").append(card);
    const own = { ...plot, card, values, grid, area, paths, hair, dots, none, chart, tip, width: 0, x: () => 0, y: () => 0 };
    chart.addEventListener("pointermove", (event) => point(nearest(own, event), own));
    chart.addEventListener("pointerdown", (event) => point(nearest(own, event), own));
    chart.addEventListener("pointerleave", () => point(null, own));
    chart.addEventListener("focus", () => point(at ?? times.length - 1, own));
    chart.addEventListener("blur", () => point(null, own));
    chart.addEventListener("keydown", (event) => {
      const last = times.length - 1;
      const from = at ?? last;
      const to = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, PageUp: from + 12, PageDown: from - 12, Home: 0, End: last }[event.key];
      if (event.key === "Escape") point(null, own);
      if (to === undefined) return;
      event.preventDefault();
      point(Math.max(0, Math.min(last, to)), own);
    });
    return own;
  });

  const nearest = (plot, event) => {
    if (times.length === 0) return null;
    const box = plot.chart.getBoundingClientRect();
    const width = plot.width - LEFT - RIGHT;
    const time = ends[0] + ((event.clientX - box.left - LEFT) / width) * (ends[1] - ends[0]);
    let best = 0;
    for (let n = 1; n < times.length; n += 1) if (Math.abs(times[n] - time) < Math.abs(times[best] - time)) best = n;
    return best;
  };

  const values = (name) => {
    const told = rows(series[name]);
    // The newest of each line is the newest there is.
    return times.map((_, n) => {
      const value = told[told.length - times.length + n];
      return isNumber(value) ? value : null;
    });
  };

  const tick = (unit, value) => (value === 0 && unit !== "ratio" ? "0" : write(unit, value));

  const plotOne = (plot) => {
    const lines = plot.lines.map(([name]) => values(name));
    plot.points = lines;
    const width = Math.max(160, Math.round(plot.chart.clientWidth || plot.width || 320));
    plot.width = width;
    plot.chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const most = round(plot.unit, Math.max(0, ...lines.flat().filter((value) => value !== null)));
    const x = (time) => LEFT + ((time - ends[0]) / (ends[1] - ends[0])) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - Math.min(1, value / most)) * (HEIGHT - TOP - BOTTOM);
    plot.x = x;
    plot.y = y;

    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const level = y(part * most);
      parts.push(draw("line", { class: part === 0 ? "zero" : "", x1: LEFT, x2: width - RIGHT, y1: level, y2: level }));
      parts.push(draw("text", { x: LEFT - 8, y: level + 4, "text-anchor": "end" }, tick(plot.unit, part * most)));
    }
    for (const part of width > 360 ? [0, 1 / 3, 2 / 3, 1] : [0, 0.5, 1]) {
      const time = ends[0] + part * (ends[1] - ends[0]);
      const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
      parts.push(draw("text", { x: x(time), y: HEIGHT - 4, "text-anchor": anchor }, times.length > 0 ? minute.format(time) : ""));
    }
    plot.grid.replaceChildren(...parts);

    lines.forEach((points, n) => {
      // Where there is no value the line is broken.
      let path = "";
      let shape = "";
      let begun = null;
      let last = null;
      const close = () => {
        if (begun !== null) shape += `V${y(0).toFixed(1)}H${begun.toFixed(1)}Z`;
      };
      points.forEach((value, p) => {
        if (value === null) {
          close();
          begun = null;
          last = null;
          return;
        }
        const [px, py] = [x(times[p]), y(value)];
        path += last === null ? `M${px.toFixed(1)} ${py.toFixed(1)}h0` : `L${px.toFixed(1)} ${py.toFixed(1)}`;
        shape += last === null ? `M${px.toFixed(1)} ${y(0).toFixed(1)}V${py.toFixed(1)}` : `L${px.toFixed(1)} ${py.toFixed(1)}`;
        if (begun === null) begun = px;
        last = px;
      });
      close();
      plot.paths[n].setAttribute("d", path);
      if (n === 0) plot.area.setAttribute("d", shape);
      tell(plot.values[n], write(plot.unit, points.at(-1)));
      plot.values[n].dataset.value = points.at(-1) ?? "";
    });
    const told = lines.some((points) => points.some((value) => value !== null));
    plot.none.setAttribute("visibility", told ? "hidden" : "visible");
    plot.none.setAttribute("x", LEFT + (width - LEFT - RIGHT) / 2);
    plot.card.classList.toggle("troubled", Boolean(plot.troubles) && lines[0].some((value) => value > 0));
    plot.card.classList.toggle("troubled-now", Boolean(plot.troubles) && lines[0].at(-1) > 0);
    plot.chart.setAttribute("aria-valuemax", String(Math.max(0, times.length - 1)));
    plot.chart.setAttribute("aria-label", `${plot.title} over the last ${span(ends[1] - ends[0])}`);
    place(plot);
  };

  // Where the crosshair is, what it reads, and the box that says so beside the one plot.
  const place = (plot, read = false) => {
    const shown = at !== null && at < times.length;
    const last = times.length - 1;
    const here = shown ? at : last;
    const told = here >= 0 ? plot.lines.map(([, name], n) => `${name} ${write(plot.unit, plot.points?.[n]?.[here])}`) : [];
    plot.chart.setAttribute("aria-valuenow", String(Math.max(0, here)));
    plot.chart.setAttribute("aria-valuetext", here >= 0 ? `${clock.format(times[here])}: ${told.join(", ")}` : "nothing yet");
    plot.hair.setAttribute("visibility", shown ? "visible" : "hidden");
    plot.dots.forEach((dot, n) => {
      const value = shown ? plot.points?.[n]?.[at] ?? null : null;
      dot.setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value === null) return;
      dot.setAttribute("cx", plot.x(times[at]));
      dot.setAttribute("cy", plot.y(value));
    });
    if (shown) {
      plot.hair.setAttribute("x1", plot.x(times[at]));
      plot.hair.setAttribute("x2", plot.x(times[at]));
    }
    plot.tip.hidden = !(shown && read);
    if (plot.tip.hidden) return;
    plot.tip.replaceChildren(make("b", {}, clock.format(times[at])), ...told.flatMap((line) => [document.createElement("br"), line]));
    const box = plot.chart.getBoundingClientRect();
    const card = plot.card.getBoundingClientRect();
    const left = box.left - card.left + plot.x(times[at]);
    const room = card.width - plot.tip.offsetWidth - 8;
    const beside = left + 12 > room ? left - plot.tip.offsetWidth - 12 : left + 12;
    plot.tip.style.transform = `translate(${Math.max(8, Math.min(room, beside))}px, ${box.top - card.top + TOP}px)`;
  };

  let reading = null; // the plot whose box is shown
  const point = (to, plot) => {
    at = to === null || times.length === 0 ? null : to;
    reading = at === null ? null : plot;
    for (const each of plots) place(each, each === reading);
  };

  const plotAll = () => {
    const minutes = Math.round((ends[1] - ends[0]) / 60_000);
    tell(byId("plots-head"), minutes === 60 ? "Last hour" : `Last ${minutes} minutes`);
    for (const plot of plots) plotOne(plot);
    if (reading) place(reading, true);
  };

  // ---- tenants ---------------------------------------------------------------------

  const SHORT = { memory_bytes: "memory", cache_entries: "entries", storage_bytes: "storage", operations_per_minute: "calls/min", data_transfer_bytes: "transfer", active_sessions: "sessions" };
  const part = (quota) => {
    if (typeof quota?.limit !== "number" || !isNumber(quota.used) || quota.limit < 0) return null;
    return quota.limit === 0 ? 1 : quota.used / quota.limit;
  };
  // Rounded down, so that 100 % is all; what is not nothing is not shown as nothing.
  const whole = (part) => {
    const percents = Math.floor(part * 100 + 1e-9);
    return percents === 0 && part > 0 ? "<1 %" : percents > 999 ? ">999 %" : percents + " %";
  };
  const fullest = (tenant) => rows(tenant.quotas).reduce((best, quota) => (part(quota) !== null && (best === null || part(quota) > part(best)) ? quota : best), null);
  const amount = (quota) => {
    const unit = text(quota.metric).endsWith("_bytes") ? "bytes" : "count";
    const used = write(unit, quota.used);
    return part(quota) === null ? `${used}, unlimited` : `${used} of ${write(unit, quota.limit)} (${write("ratio", part(quota))})`;
  };
  const name = (metric) => (Object.hasOwn(SHORT, metric) ? SHORT[metric] : metric);
  const number = (field) => (tenant) => (isNumber(tenant[field]) ? tenant[field] : 0);
  const COLUMNS = [
    { head: "Tenant", of: (tenant) => text(tenant.tenant_id), first: "ascending" },
    { head: "Calls/s", of: number("calls_per_second"), unit: "count" },
    { head: "Hits", of: (tenant) => (isNumber(tenant.hit_ratio) ? tenant.hit_ratio : null), unit: "ratio", first: "ascending" },
    { head: "Errors/s", of: number("errors_per_second"), unit: "count", troubles: true },
    { head: "Throttled/s", of: number("throttled_per_second"), unit: "count", troubles: true },
    { head: "In/s", of: number("received_bytes_per_second"), unit: "bytes", wide: true },
    { head: "Out/s", of: number("sent_bytes_per_second"), unit: "bytes", wide: true },
    { head: "Fullest quota", of: (tenant) => part(fullest(tenant)) },
  ];
  let order = { column: 1, direction: "descending" };
  let tenants = [];

  const heads = COLUMNS.map((column, n) => {
    const by = make("span", { class: "by", "aria-hidden": "true" });
    // At the side where the column has room, so that heads stand over what they head.
    const button = make("button", { type: "button" }, ...(column.unit ? [by, column.head] : [column.head, by]));
    const head = make("th", { scope: "col", ...(column.wide ? { class: "wide" } : {}) }, button);
    button.addEventListener("click", () => {
      const opposite = order.direction === "ascending" ? "descending" : "ascending";
      order = { column: n, direction: order.column === n ? opposite : column.first ?? "descending" };
      tabulate();
      tell(byId("order"), `Ordered by ${column.head.toLowerCase()}, ${order.direction}.`);
    });
    byId("columns").append(head);
    return { head, by };
  });

  // A row stays the same element as long as its tenant is there, and with it what is
  // open or focused in it.
  const known = new Map();
  const row = (tenantId) => {
    const cells = COLUMNS.slice(1, -1).map((column) => make("td", { "data-label": column.head, ...(column.wide ? { class: "wide" } : {}) }));
    const bar = make("i");
    const used = make("span", { class: "part" });
    const metric = make("span", { class: "metric" });
    const list = make("ul");
    const details = make("details", {}, make("summary", {}, make("span", { class: "bar", "aria-hidden": "true" }, bar), used, metric), list);
    const none = make("span", { class: "quiet" }, "–");
    const quota = make("td", { class: "quota" }, details, none);
    const own = make("tr", tenantId === REST ? { class: "rest" } : {}, make("th", { scope: "row", title: tenantId }, tenantId || "(nameless)"), ...cells, quota);
    return { own, cells, bar, used, metric, list, details, none, quota };
  };

  const fill = (entry, tenant) => {
    COLUMNS.slice(1, -1).forEach((column, n) => {
      const value = column.of(tenant);
      const cell = entry.cells[n];
      tell(cell, write(column.unit, value));
      cell.dataset.value = value ?? "";
      cell.classList.toggle("nothing", !value);
      cell.classList.toggle("trouble", Boolean(column.troubles) && value > 0);
    });
    const most = fullest(tenant);
    entry.details.hidden = most === null;
    entry.none.hidden = most !== null;
    if (most === null) return;
    const filled = part(most);
    entry.bar.style.width = `${Math.max(filled > 0 ? 2 : 0, Math.min(100, filled * 100))}%`;
    entry.quota.classList.toggle("filling", filled >= FILLING && filled < FULL);
    entry.quota.classList.toggle("full", filled >= FULL);
    tell(entry.used, (filled >= FULL ? "! " : "") + whole(filled));
    tell(entry.metric, name(text(most.metric)));
    const lines = rows(tenant.quotas).map((quota) => [name(text(quota?.metric)), amount(quota ?? {})]);
    while (entry.list.children.length > lines.length) entry.list.lastChild.remove();
    lines.forEach(([metric, told], n) => {
      if (!entry.list.children[n]) entry.list.append(make("li", {}, make("span", { class: "metric" }), make("span")));
      tell(entry.list.children[n].firstChild, metric);
      tell(entry.list.children[n].lastChild, told);
    });
  };

  const tabulate = () => {
    const column = COLUMNS[order.column];
    const sign = order.direction === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      const rest = (tenant) => (tenant.tenant_id === REST ? 1 : 0);
      const [x, y] = [column.of(a), column.of(b)];
      const missing = (x === null ? 1 : 0) - (y === null ? 1 : 0);
      const chosen = typeof x === "string" ? x.localeCompare(y) : x - y;
      return rest(a) - rest(b) || missing || sign * chosen || text(a.tenant_id).localeCompare(text(b.tenant_id));
    };
    const sorted = [...tenants].sort(compare);
    const seen = new Set();
    let before = null;
    for (const tenant of sorted) {
      const id = text(tenant.tenant_id);
      if (seen.has(id)) continue;
      seen.add(id);
      if (!known.has(id)) known.set(id, row(id));
      const entry = known.get(id);
      fill(entry, tenant);
      const place = before === null ? byId("rows").firstChild : before.nextSibling;
      if (place !== entry.own) byId("rows").insertBefore(entry.own, place);
      before = entry.own;
    }
    for (const [id, entry] of known) {
      if (seen.has(id)) continue;
      entry.own.remove();
      known.delete(id);
    }
    heads.forEach(({ head, by }, n) => {
      const chosen = n === order.column;
      if (chosen) head.setAttribute("aria-sort", order.direction);
      else head.removeAttribute("aria-sort");
      tell(by, chosen ? (order.direction === "ascending" ? "▴" : "▾") : "");
    });
    byId("empty").hidden = tenants.length > 0;
  };

  // ---- who it is, and how it is ------------------------------------------------------

  const short = (service) => {
    const last = service.split(".").at(-1);
    return last !== "Service" && last.endsWith("Service") ? last.slice(0, -7).toLowerCase() : last || "all";
  };
  const healthy = (parts) => {
    const list = byId("health");
    // What fails comes first.
    const sorted = [...parts].sort((a, b) => Number(a?.serving === true) - Number(b?.serving === true));
    const items = sorted.map((part) => {
      const serving = part?.serving === true;
      const trouble = text(part?.trouble);
      const says = short(text(part?.service)) + (serving ? "" : trouble ? ": " + trouble : " does not serve");
      return make("li", serving ? {} : { class: "failing" },
        make("span", { role: "img", "aria-label": serving ? "serves:" : "fails:" }, serving ? "✓" : "✕"), make("span", { class: "part" }, says));
    });
    const same = list.textContent === items.map((item) => item.textContent).join("");
    if (!same) list.replaceChildren(...items);
  };

  const show = (figures) => {
    const up = isNumber(figures.start_time_ms) ? "up " + span(figures.time_ms - figures.start_time_ms) : "";
    const about = [text(figures.version), text(figures.backend), text(figures.replica), up].filter(Boolean).join(" · ");
    tell(byId("about"), about || "\u00a0");
    document.title = text(figures.replica) ? `${text(figures.replica)} · riptide-persistence` : "riptide-persistence";
    document.body.dataset.time = figures.time_ms;
    healthy(rows(figures.health));
    const before = at === null ? null : times[at];
    series = figures.series !== null && typeof figures.series === "object" ? figures.series : {};
    times = rows(series.time_ms).filter(isNumber).slice(-720);
    const end = times.at(-1) ?? figures.time_ms ?? Date.now();
    const begin = times[0] ?? end;
    const wide = SPANS_MS.find((ms) => end - begin <= ms) ?? SPANS_MS.at(-1);
    ends = [end - wide, end];
    // The crosshair stays on its moment while the plots move on below it.
    if (before !== null) {
      const moved = times.indexOf(before);
      at = moved >= 0 ? moved : null;
      if (at === null) reading = null;
    }
    plotAll();
    tenants = rows(figures.tenants).filter((tenant) => tenant !== null && typeof tenant === "object");
    tabulate();
  };

  // ---- asking ------------------------------------------------------------------------

  const opened = Date.now();
  let paused = false;
  let answered = null; // when the last answer came
  let gone = null; // since when there is none, and why
  let asking = false;

  const state = () => {
    const now = Date.now();
    const place = byId("state");
    let [kind, says] = ["asking", "Asking for figures"];
    if (gone !== null && gone.denied) [kind, says] = ["gone", "The admin key is asked for: reload the page"];
    else if (gone !== null) [kind, says] = ["gone", `No answer since ${clock.format(gone.since)} (${span(now - gone.since)})`];
    else if (paused) [kind, says] = ["paused", `Paused; as of ${clock.format(answered ?? now)}`];
    else if (answered !== null) [kind, says] = ["live", `Live; as of ${clock.format(answered)}`];
    place.dataset.state = kind;
    // Not told to those who listen each second, only when it changes.
    place.setAttribute("aria-live", place.dataset.told === kind ? "off" : "polite");
    place.dataset.told = kind;
    tell(byId("state-text"), says);
    document.body.classList.toggle("stale", gone !== null);
  };

  const ask = async () => {
    if (asking || paused || document.hidden) return;
    asking = true;
    let figures = null;
    let denied = false;
    try {
      const answer = await fetch(FIGURES, { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE_MS) });
      denied = answer.status === 401 || answer.status === 403;
      if (answer.ok) figures = await answer.json();
    } catch {
      figures = null;
    }
    asking = false;
    if (paused) return;
    if (figures === null || typeof figures !== "object") {
      gone = { since: gone?.since ?? answered ?? opened, denied };
    } else {
      const now = Date.now();
      if (gone !== null) tell(byId("outage"), `Last without an answer: ${clock.format(gone.since)} to ${clock.format(now)}.`);
      answered = now;
      gone = null;
      show(figures);
    }
    state();
  };

  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    tell(byId("pause"), paused ? "Go on" : "Pause");
    state();
    ask();
  });
  document.addEventListener("visibilitychange", ask);
  new ResizeObserver(() => plotAll()).observe(byId("plots"));
  setInterval(ask, EVERY_MS);
  setInterval(state, 1000);
  tabulate();
  byId("empty").hidden = true;
  ask();
})();
