// The map as a page: pan, zoom, search, filter; a click shows connections. All text of others is set as text, never as markup.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MOST_ROWS = 500;
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas"), world = $("world"), panel = $("panel"), search = $("search");
  let data = null, nodes = new Map(), edges = [], byNode = new Map(), known = null;
  let chosen = null, tab = "map", sortBy = null;
  const off = { kinds: new Set(), groups: new Set(), held: false, rest: false };
  const eye = { x: 0, y: 0, k: 1, moved: false };

  function make(tag, attributes, ...children) {
    const svg = ["g", "rect", "path", "text", "title"].includes(tag);
    const it = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "onclick") it.addEventListener("click", value);
      else if (value !== null && value !== undefined) it.setAttribute(name, value);
    }
    for (const child of children) if (child !== null && child !== undefined) it.append(child);
    return it;
  }
  const cut = (text, most) => ([...text].length > most ? [...text].slice(0, most - 1).join("") + "…" : text);
  const bad = (one) => one.stuck === true || one.deadlocked || (Array.isArray(one.stuck) && one.stuck.length > 0)
    || (one.leak && one.leak.length > 0) || one.leaks === true;
  const process = (pid) => nodes.get("p" + pid);
  const labelOf = (pid) => { const it = process(pid); return it ? it.of.label : "process " + pid; };

  // ---- drawing -------------------------------------------------------------------------------

  function show(next) {
    const first = data === null;
    data = next;
    nodes = new Map(); edges = []; byNode = new Map();
    world.replaceChildren();
    data.groups.forEach((group, at) => {
      if (!group.rect || group.rect.w === 0) return;
      const r = group.rect;
      const frame = make("g", { "data-group": at },
        make("rect", { class: "frame", x: r.x, y: r.y, width: r.w, height: r.h, rx: 8 }));
      const name = make("text", { class: "name", x: r.x + 10, y: r.y + 17 });
      name.textContent = cut(group.name, Math.max(4, Math.floor((r.w - 16) / 7.6)));
      frame.append(name);
      world.append(frame);
    });
    const behind = make("g"), before = make("g");
    world.append(behind, before);
    for (const one of data.processes) addNode(before, "p" + one.pid, one, one.label, false);
    data.channels.forEach((one, at) => { if (one.rect) addNode(before, "c" + at, one, one.short, true); });
    data.lines.forEach((line, at) => addEdge(behind, line, at));
    const pids = new Set(data.processes.map((one) => one.pid + " " + one.started));
    if (known) for (const one of data.processes) {
      if (!known.has(one.pid + " " + one.started)) nodes.get("p" + one.pid).el.classList.add("new");
    }
    known = pids;
    header();
    filters();
    if (chosen && !stillThere(chosen)) chosen = null;
    if (first || !eye.moved) fit(); else look();
    update();
  }

  function addNode(to, key, of, text, object) {
    const r = of.rect;
    const el = make("g", { class: "node" + (object ? " object" : "") + (bad(of) ? " bad" : ""), "data-key": key },
      make("rect", { x: r.x, y: r.y, width: r.w, height: r.h, rx: object ? r.h / 2 : 4 }));
    const label = make("text", { x: r.x + 7, y: r.y + r.h / 2 + 4 });
    label.textContent = cut(text, data.longest_label);
    const title = make("title");
    title.textContent = (object ? [of.title, ...of.leak] : [text, ...of.stuck]).join("\n");
    el.append(label, title);
    to.append(el);
    nodes.set(key, { el, of, object, text });
  }

  function addEdge(to, line, at) {
    const el = make("g", { class: "edge " + line.hold + (line.stuck || line.leaks ? " bad" : ""), "data-edge": at },
      make("path", { class: "seen", d: line.path, "marker-start": line.arrows[0] ? "url(#from)" : null,
        "marker-end": line.arrows[1] ? "url(#to)" : null }));
    if (line.label) {
      const r = line.label;
      const note = make("text", { class: "note", x: r.x + 3, y: r.y + 10 });
      note.textContent = line.text;
      el.append(make("rect", { class: "paper", x: r.x, y: r.y, width: r.w, height: r.h }), note);
    }
    el.append(make("path", { class: "grip", d: line.path }));
    to.append(el);
    edges.push({ el, line });
    for (const key of [line.a, line.b]) {
      if (!byNode.has(key)) byNode.set(key, []);
      byNode.get(key).push(at);
    }
  }

  const stillThere = (what) => (what.node ? nodes.has(what.node) : edges.some((one) => sameEdge(one.line, what)));
  const sameEdge = (line, what) => line.a === what.a && line.b === what.b;

  function look() { world.setAttribute("transform", `translate(${eye.x} ${eye.y}) scale(${eye.k})`); }

  function fit() {
    const box = canvas.getBoundingClientRect();
    if (!data || !box.width) return;
    // The legend lies over the rest.
    const height = box.height - 44;
    const k = Math.min(box.width / (data.width + 60), height / (data.height + 30), 1.4);
    eye.k = Math.max(k, 0.02);
    eye.x = (box.width - data.width * eye.k) / 2;
    eye.y = Math.max((height - data.height * eye.k) / 2, 8);
    look();
  }

  function zoom(factor, x, y) {
    const k = Math.min(Math.max(eye.k * factor, 0.02), 6);
    eye.x = x - (x - eye.x) * k / eye.k;
    eye.y = y - (y - eye.y) * k / eye.k;
    eye.k = k;
    eye.moved = true;
    look();
  }

  function centre(key) {
    const it = nodes.get(key), box = canvas.getBoundingClientRect();
    if (!it || !box.width) return;
    eye.k = Math.max(eye.k, 0.8);
    eye.x = box.width / 2 - (it.of.rect.x + it.of.rect.w / 2) * eye.k;
    eye.y = box.height / 2 - (it.of.rect.y + it.of.rect.h / 2) * eye.k;
    eye.moved = true;
    look();
  }

  // ---- what is seen --------------------------------------------------------------------------

  function matches(of, words) {
    const text = (of.label || of.title || "") + " " + (of.user || "") + " " + (of.command || "") + " " + (of.id || "");
    return words.every((word) => text.toLowerCase().includes(word));
  }
  const query = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);

  function groupOf(key) { const it = nodes.get(key); return it.object ? it.of.home : it.of.group; }
  function channelOff(at) {
    const one = data.channels[at];
    return off.kinds.has(one.kind) || (off.held && one.hold === "held") || (off.rest && !bad(one));
  }

  function update() {
    const words = query(), lit = new Set();
    const hidden = new Set();
    for (const [key, it] of nodes) {
      const gone = off.groups.has(groupOf(key)) || (it.object && channelOff(Number(key.slice(1))))
        || (off.rest && !it.object && !bad(it.of));
      if (gone) hidden.add(key);
      it.el.classList.toggle("off", gone);
      it.el.classList.toggle("chosen", Boolean(chosen && chosen.node === key));
    }
    for (const frame of world.querySelectorAll("[data-group]")) {
      frame.classList.toggle("off", off.groups.has(Number(frame.dataset.group)));
    }
    for (const { el, line } of edges) {
      const gone = hidden.has(line.a) || hidden.has(line.b) || line.channels.every(channelOff)
        || (off.held && line.hold === "held");
      el.classList.toggle("off", gone);
      el.classList.toggle("chosen", Boolean(chosen && chosen.a && sameEdge(line, chosen)));
    }
    if (chosen && chosen.node) {
      lit.add(chosen.node);
      for (const at of byNode.get(chosen.node) || []) { lit.add(edges[at].line.a); lit.add(edges[at].line.b); }
    } else if (chosen) {
      lit.add(chosen.a); lit.add(chosen.b);
    } else if (words.length) {
      for (const [key, it] of nodes) if (matches(it.of, words)) lit.add(key);
    }
    const choice = Boolean(chosen) || words.length > 0;
    world.classList.toggle("choice", choice);
    for (const [key, it] of nodes) it.el.classList.toggle("lit", lit.has(key));
    for (const { el, line } of edges) {
      const on = chosen && chosen.node ? line.a === chosen.node || line.b === chosen.node
        : chosen ? sameEdge(line, chosen) : lit.has(line.a) && lit.has(line.b);
      el.classList.toggle("lit", Boolean(on));
    }
    if (tab === "map") describe(); else table();
  }

  function choose(what) { chosen = what; update(); }

  // Of an object by its id: the object on the map, or the line that it is.
  function placeOf(id) {
    const at = data.channels.findIndex((one) => one.objects.includes(id));
    if (at < 0) return null;
    if (data.channels[at].rect) return { node: "c" + at };
    const found = edges.find((one) => one.line.channels.includes(at));
    return found ? { a: found.line.a, b: found.line.b } : null;
  }

  function goTo(what) {
    if (!what) return;
    setTab("map");
    choose(what);
    centre(what.node || what.a);
  }

  // ---- the panel -----------------------------------------------------------------------------

  const link = (text, go) => make("button", { class: "link", onclick: go }, text);
  const to = (pid) => (process(pid)
    ? link(labelOf(pid), () => goTo({ node: "p" + pid })) : labelOf(pid));
  const toObject = (id) => (placeOf(id) ? link(id, () => goTo(placeOf(id))) : id);
  const tag = (text, red) => make("span", { class: "tag" + (red ? " red" : "") }, text);
  const line = (kind, ...children) => make("p", { class: kind || "" }, ...children);

  function describe() {
    panel.replaceChildren();
    if (!data) { panel.append(line("soft", "Nothing yet.")); return; }
    if (!chosen) return overview();
    if (chosen.node) {
      const it = nodes.get(chosen.node);
      if (it.object) describeChannel(it.of); else describeProcess(it.of);
      return;
    }
    const found = edges.find((one) => sameEdge(one.line, chosen));
    panel.append(make("h2", {}, found.line.text));
    for (const at of found.line.channels) describeChannel(data.channels[at]);
  }

  function overview() {
    const stuck = data.processes.filter((one) => one.stuck.length);
    panel.append(make("h2", {}, data.machine || "This machine"),
      line("soft", `${data.processes.length} processes, ${data.channels.length} channels between them, by ${data.grouping}`),
      line("soft", "Click a process, a line or an object; drag to move, scroll to zoom."));
    if (stuck.length) panel.append(make("h3", {}, "Stuck"));
    for (const one of stuck.slice(0, 40)) {
      panel.append(line("", to(one.pid)), ...one.stuck.map((text) => line("wrong", text)));
    }
    if (data.leaks.length) panel.append(make("h3", {}, "Leaks"));
    for (const one of data.leaks.slice(0, 40)) panel.append(line("wrong", toObject(one.object), ": " + one.reasons.join("; ")));
    if (data.missing.length) panel.append(make("h3", {}, "Not seen"), ...data.missing.map((text) => line("soft", text)));
  }

  function describeProcess(one) {
    panel.append(make("h2", {}, one.label), line("", ...[one.user, ...one.marks].map((text) => tag(text, false)),
      one.deadlocked ? tag("deadlocked", true) : null));
    if (one.command) panel.append(line("soft", one.command));
    for (const text of one.stuck) panel.append(line("wrong", text));
    for (const text of one.waits) panel.append(line("soft", "waits in " + text));
    if (nodes.has("p" + one.parent)) panel.append(line("soft", "child of ", to(one.parent)));
    const own = data.channels.map((channel, at) => [channel, at])
      .filter(([channel]) => channel.parties.some((party) => party.pid === one.pid));
    panel.append(make("h3", {}, `Connections: ${own.length}`));
    const list = make("ul", { id: "connections" });
    for (const [channel, at] of own) list.append(connection(one, channel, at));
    panel.append(list, line("soft", `${one.alone} objects that it shares with nobody`));
  }

  function connection(one, channel, at) {
    const self = channel.parties.find((party) => party.pid === one.pid);
    const others = channel.parties.filter((party) => party.pid !== one.pid);
    const reads = channel.flows.some((flow) => flow.to === one.pid) || (channel.rect && self.reads);
    const writes = channel.flows.some((flow) => flow.from === one.pid) || (channel.rect && self.writes);
    const arrow = reads && writes ? "⇄" : writes ? "→" : reads ? "←" : "–";
    const item = make("li", { class: bad(channel) ? "wrong" : "" }, arrow + " ");
    if (channel.rect) item.append(link(channel.title, () => choose({ node: "c" + at })), ` with ${others.length} others `);
    else { item.append(...others.slice(0, 1).map((party) => to(party.pid)), " ", make("span", { class: "soft" }, channel.title), " "); }
    if (self.hold !== "used") item.append(tag(self.hold === "held" ? "held" : "perhaps used", false), " ");
    if (!channel.rect && others[0] && others[0].hold === "held") item.append(tag("merely held there", false), " ");
    if (channel.full) item.append(tag("full", true), " ");
    if (channel.stuck) item.append(tag("waited for", true), " ");
    if (channel.leak.length) item.append(tag("leaks", true));
    item.append(make("div", { class: "soft" }, self.why));
    return item;
  }

  function describeChannel(one) {
    panel.append(make("h3", {}, one.title));
    panel.append(line("soft", one.kind + (one.state ? ", " + one.state : "") + (one.full ? ", full" : "")));
    if (one.stuck) panel.append(line("wrong", "Somebody who looks stuck waits for it."));
    for (const why of one.leak) panel.append(line("wrong", "leaks: " + why));
    const list = make("ul", {});
    for (const party of one.parties) {
      const way = [party.reads && "reads", party.writes && "writes"].filter(Boolean).join(" and ");
      list.append(make("li", {}, to(party.pid), ` ${way} (${party.ends.join(" ")}) `,
        tag(party.hold === "perhaps" ? "perhaps used" : party.hold, false), make("div", { class: "soft" }, party.why)));
    }
    panel.append(list);
  }

  // ---- the tables ----------------------------------------------------------------------------

  const ofProcess = (pid) => (process(pid) ? { node: "p" + pid } : null);
  const TABLES = {
    processes: { titles: ["process", "user", "group", "state", "channels", "alone", "command"], rows: () => data.processes.map((one) => ({
      of: one, bad: bad(one), go: () => ofProcess(one.pid),
      cells: [one.label, one.user, (data.groups[one.group] || {}).name || "", [one.state, ...one.marks].join(" "),
        (byNode.get("p" + one.pid) || []).length, one.alone, one.command] })) },
    objects: { titles: ["object", "kind", "name", "owner", "fill", "size", "state", "processes"], rows: () => data.objects.map((one) => ({
      of: one, bad: one.leak.length > 0, go: () => placeOf(one.id) || ofProcess(one.pids[0]),
      cells: [one.id, one.kind, one.name, one.owner, one.fill ?? "", one.size ?? "", one.state || "",
        one.pids.slice(0, 6).map(labelOf).join(", ") + (one.pids.length > 6 ? ` and ${one.pids.length - 6} more` : "")] })) },
    stuck: { titles: ["process", "why"], rows: () => data.processes.filter((one) => one.stuck.length || one.deadlocked).map((one) => ({
      of: one, bad: true, go: () => ofProcess(one.pid), cells: [one.label + (one.deadlocked ? " (deadlocked)" : ""), one.stuck.join("; ")] })) },
    leaks: { titles: ["object", "how sure", "why", "not checked"], rows: () => data.leaks.map((one) => ({
      of: { title: one.object }, bad: true, go: () => placeOf(one.object),
      cells: [one.object, one.certainty, one.reasons.join("; "), one.not_checked.join("; ")] })) },
  };

  function table() {
    const kind = TABLES[tab], place = $("table"), words = query();
    let rows = kind.rows().filter((row) => !words.length
      || words.every((word) => row.cells.some((cell) => String(cell).toLowerCase().includes(word))));
    if (sortBy && sortBy.tab === tab) {
      const at = sortBy.column, way = sortBy.down ? -1 : 1;
      rows.sort((a, b) => way * (typeof a.cells[at] === "number" && typeof b.cells[at] === "number"
        ? a.cells[at] - b.cells[at] : String(a.cells[at]).localeCompare(String(b.cells[at]), undefined, { numeric: true })));
    }
    const all = rows.length;
    rows = rows.slice(0, MOST_ROWS);
    const head = make("tr", {}, ...kind.titles.map((title, column) => make("th", { onclick: () => {
      sortBy = { tab, column, down: Boolean(sortBy && sortBy.tab === tab && sortBy.column === column && !sortBy.down) };
      table();
    } }, title)));
    const body = make("tbody", {}, ...rows.map((row) => make("tr", { class: row.bad ? "wrong" : "", onclick: () => {
      goTo(row.go());
    } }, ...row.cells.map((cell) => make("td", {}, String(cell))))));
    const top = place.scrollTop;
    place.replaceChildren(make("table", {}, make("thead", {}, head), body));
    if (!all) place.append(make("div", { class: "none" }, { stuck: "Nothing looks stuck.", leaks: "Nothing leaks." }[tab] || "Nothing."));
    if (all > MOST_ROWS || (tab === "objects" && data.more_objects)) {
      place.append(make("div", { class: "none" }, `${rows.length} of ${all + (tab === "objects" ? data.more_objects : 0)} are shown; search for others.`));
    }
    place.scrollTop = top;
    describe();
  }

  // ---- header and filters --------------------------------------------------------------------

  function header() {
    const counts = { processes: data.processes.length, objects: data.objects.length + data.more_objects,
      stuck: data.processes.filter((one) => one.stuck.length || one.deadlocked).length, leaks: data.leaks.length };
    for (const button of document.querySelectorAll("#tabs button")) {
      const count = counts[button.dataset.tab];
      if (count === undefined) continue;
      button.querySelector("b").textContent = count;
      button.classList.toggle("alarm", count > 0 && ["stuck", "leaks"].includes(button.dataset.tab));
    }
    const when = new Date(data.taken_unix_ms);
    $("title").textContent = data.title;
    $("status").textContent = (data.live ? "live, " : "") + (data.taken_unix_ms ? when.toLocaleTimeString() : "");
    $("status").classList.remove("lost");
  }

  function filters() {
    const place = $("filters"), kinds = new Map();
    for (const one of data.channels) kinds.set(one.kind, (kinds.get(one.kind) || 0) + 1);
    const box = (text, on, change) => {
      const input = make("input", { type: "checkbox" });
      input.checked = on;
      input.addEventListener("change", () => { change(input.checked); update(); });
      return make("label", {}, input, " " + text);
    };
    const flip = (set, key) => (on) => { if (on) set.delete(key); else set.add(key); };
    place.replaceChildren(box("only what is stuck or leaks", off.rest, (on) => { off.rest = on; }),
      box("ends that are merely held", !off.held, (on) => { off.held = !on; }),
      make("h4", {}, "Kinds"), ...[...kinds].sort().map(([kind, n]) => box(`${kind} (${n})`, !off.kinds.has(kind), flip(off.kinds, kind))),
      make("h4", {}, "Groups"), ...data.groups.map((group, at) => [group, at]).filter(([group]) => group.rect && group.rect.w)
        .slice(0, 200).map(([group, at]) => box(group.name, !off.groups.has(at), flip(off.groups, at))));
  }

  function setTab(next) {
    tab = next;
    for (const button of document.querySelectorAll("#tabs button")) button.classList.toggle("on", button.dataset.tab === tab);
    $("table").hidden = tab === "map";
    $("legend").hidden = tab !== "map";
    $("zoom").hidden = tab !== "map";
    if (data) update();
  }

  // ---- events --------------------------------------------------------------------------------

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY, far: false }; });
  window.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (!drag.far && Math.hypot(dx, dy) < 4) return;
    drag.far = true;
    canvas.classList.add("pans");
    eye.x += dx; eye.y += dy; eye.moved = true;
    drag.x = event.clientX; drag.y = event.clientY;
    look();
  });
  window.addEventListener("pointerup", () => {
    canvas.classList.remove("pans");
    if (drag && drag.far) setTimeout(() => { drag = null; }, 0); else drag = null;
  });
  canvas.addEventListener("click", (event) => {
    if (drag && drag.far) return;
    const node = event.target.closest("[data-key]"), edge = event.target.closest("[data-edge]");
    if (node) choose({ node: node.dataset.key });
    else if (edge) { const { line } = edges[Number(edge.dataset.edge)]; choose({ a: line.a, b: line.b }); }
    else choose(null);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) / 400), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  $("zoom").addEventListener("click", (event) => zoomBy(event.target.dataset.zoom));
  function zoomBy(how) {
    const box = canvas.getBoundingClientRect();
    if (how === "all") { eye.moved = false; fit(); }
    else if (how) zoom(how === "in" ? 1.3 : 1 / 1.3, box.width / 2, box.height / 2);
  }
  $("tabs").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) setTab(button.dataset.tab);
  });
  search.addEventListener("input", () => { chosen = null; if (data) update(); });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !data || tab !== "map") return;
    const words = query();
    const found = words.length && [...nodes].find(([, it]) => matches(it.of, words));
    if (found) { choose({ node: found[0] }); centre(found[0]); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target === search) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    else if (event.key === "Escape") choose(null);
    else if (event.key === "+") zoomBy("in");
    else if (event.key === "-") zoomBy("out");
    else if (event.key === "0") zoomBy("all");
  });
  window.addEventListener("resize", () => { if (!eye.moved) fit(); });

  const embedded = $("data");
  if (embedded) show(JSON.parse(embedded.textContent));
  else {
    $("status").textContent = "looking…";
    const events = new EventSource("events");
    events.addEventListener("map", (event) => show(JSON.parse(event.data)));
    events.addEventListener("over", () => { events.close(); $("status").textContent = "ended"; $("status").classList.add("lost"); });
    events.onerror = () => { $("status").textContent = "lost; trying again"; $("status").classList.add("lost"); };
  }
})();
