"use strict";
// Tables that sort and filter, and the dialog that explains a number. Text from data is only ever
// set as text; nothing here builds markup from strings.

const DATA = JSON.parse(document.getElementById("data").textContent);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- sorting ---------------------------------------------------------------------------------

function sortKey(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) {
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }
  return (cell.dataset.text ?? cell.textContent).trim();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortTable(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (column === null) rows.sort((a, b) => a.dataset.order - b.dataset.order);
  else {
    rows.sort((a, b) => {
      const [x, y] = [sortKey(a, column), sortKey(b, column)];
      if (x === null || y === null) return (x === null) - (y === null); // no number: last
      return direction * compare(x, y) || a.dataset.order - b.dataset.order;
    });
  }
  body.append(...rows);
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
  table.classList.toggle("sorted", column !== null);
  markBlocks(table);
}

function markBlocks(table) {
  // A line above the first row of each block, and of each group of methods in it, with the name of
  // the group: as long as the rows stand in their order.
  let last = null, group = null;
  for (const row of table.tBodies[0].rows) {
    row.classList.remove("start", "apart");
    if (row.hidden || !table.classList.contains("numbers")) continue;
    const block = row.cells[0].textContent;
    const inOrder = !table.classList.contains("sorted");
    if (last !== null && block !== last && inOrder) row.classList.add("start");
    if (block !== last) group = null;
    if (row.dataset.group && row.dataset.group !== group && inOrder) row.classList.add("apart");
    [last, group] = [block, row.dataset.group ?? null];
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tBodies[0].rows].forEach((row, i) => { row.dataset.order = i; });
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = element("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "ascending";
      sortTable(table, column, up ? -1 : 1);
    });
  });
}

for (const button of document.querySelectorAll("[data-reset]")) {
  button.addEventListener("click", () => {
    sortTable(document.getElementById(button.dataset.reset), null, 1);
  });
}

// --- filtering -------------------------------------------------------------------------------

function filterTable(id) {
  const table = document.getElementById(id);
  const controls = [...document.querySelectorAll(`[data-filter="${id}"]`)];
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !controls.every((control) => {
      if (control.value === "") return true;
      if (control.dataset.column !== undefined) {
        const cell = row.cells[control.dataset.column];
        return (cell.dataset.text ?? cell.textContent).trim() === control.value.trim();
      }
      return row.textContent.toLowerCase().includes(control.value.toLowerCase());
    });
    shown += !row.hidden;
  }
  const total = table.tBodies[0].rows.length;
  document.querySelector(`[data-count="${id}"]`).textContent =
    shown === total ? `${total} rows` : `${shown} of ${total} rows`;
  markBlocks(table);
}

const filtered = new Set();
for (const control of document.querySelectorAll("[data-filter]")) {
  filtered.add(control.dataset.filter);
  control.addEventListener("input", () => filterTable(control.dataset.filter));
}
filtered.forEach(filterTable);

// --- explaining a number -----------------------------------------------------------------------

const dialog = document.getElementById("explain");
const body = document.getElementById("explain-body");

function short(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))).replace("-", "−") : String(value);
}

function rowsOf(cell) {
  const rows = [];
  for (const seed of cell.seeds ?? []) {
    const values = DATA.values[[cell.method, seed, cell.metric, cell.protocol].join("|")];
    if (!values) continue;
    DATA.places.forEach(([dataset, level, image], i) => {
      if (values[i] !== null && cell.datasets.includes(dataset) && cell.levels.includes(level)) {
        rows.push({ dataset, level, image, seed, value: values[i] });
      }
    });
  }
  return rows;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function plot(cell, rows) {
  // Each image a dot, the mean a line, its interval a band.
  const values = rows.map((row) => row.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const at = (value) => 10 + (580 * (value - low)) / (high - low || 1);
  const label = `${rows.length} values from ${short(low)} to ${short(high)}, mean ${short(cell.mean)}`;
  const drawn = svg("svg", { class: "plot", viewBox: "0 0 600 88", role: "img", "aria-label": label });
  if (cell.low !== undefined) {
    drawn.append(svg("rect", { x: at(cell.low), width: Math.max(at(cell.high) - at(cell.low), 1), y: 6, height: 56 }));
  }
  rows.forEach((row, i) => {
    const dot = svg("circle", { cx: at(row.value), cy: 12 + ((i * 37) % 44), r: 3.5 });
    dot.append(svg("title", {}, `${row.dataset}, ${row.level}: ${row.image} ${short(row.value)}`));
    drawn.append(dot);
  });
  drawn.append(svg("line", { x1: at(cell.mean), x2: at(cell.mean), y1: 4, y2: 64 }));
  drawn.append(svg("text", { x: 10, y: 82 }, short(low)));
  drawn.append(svg("text", { x: 590, y: 82, "text-anchor": "end" }, short(high)));
  return drawn;
}

function pairs(list) {
  return element("dl", {}, ...list.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function sentences(cell) {
  const better = cell.higher_is_better ? "higher" : "lower";
  const seeds = (cell.seeds ?? []).join(", ") || "none";
  const found = [["printed", `${cell.printed || "(nothing)"}, status ${cell.status}`]];
  if (cell.by_seed) {
    for (const [seed, value] of cell.by_seed) found.push([`seed ${seed}`, value === null ? "not measured" : short(value)]);
    if (cell.mean !== undefined) found.push(["mean", `${short(cell.mean)}; ${better} is better`]);
  } else found.push(["images", `n = ${cell.n ?? 0} of ${cell.expected ?? 0}, seeds ${seeds}; ${better} is better`]);
  if (cell.mean !== undefined && !cell.by_seed) {
    found.push(["mean", `${short(cell.mean)}, 95% interval [${short(cell.low)}, ${short(cell.high)}]`]);
  }
  for (const reason of cell.reasons ?? []) found.push(["reason", reason]);
  if (cell.compared_with !== undefined) {
    found.push([`difference to ${DATA.explorer.labels[cell.compared_with] ?? cell.compared_with}`,
      `${short(cell.difference)} [${short(cell.difference_low)}, ${short(cell.difference_high)}], ` +
      `p ${short(cell.p)}, after Holm ${short(cell.p_holm)}: ` +
      (cell.significant ? "significant" : "not significant")]);
  }
  return found;
}

function explain(key) {
  const cell = DATA.cells[key];
  document.getElementById("explain-title").textContent =
    `${cell.label}, ${cell.metric}@${cell.protocol}, ${cell.block}`;
  const rows = rowsOf(cell).sort((a, b) => a.value - b.value);
  body.replaceChildren(pairs(sentences(cell)));
  if (rows.length > 1) body.append(plot(cell, rows));
  if (rows.length) body.append(valueTable(cell, rows));
  else if (cell.mean !== undefined && !cell.by_seed) {
    body.append(element("p", {}, "The values of this study are too many for a page; ",
      element("code", {}, `faithdiff explain ${key.split("|")[0]} "${cell.label}" ${cell.metric} "${cell.block}" --profile ${DATA.profile}`), " prints them."));
  }
  body.append(element("h3", {}, "Made from"), pairs(cell.facts.map((i) => DATA.facts[i])));
  body.append(element("h3", {}, "Made again by"));
  for (const i of cell.commands) {
    const [what, command] = DATA.commands[i].split(/: (.*)/s);
    body.append(element("p", {}, `${what}:`, element("code", { class: "block" }, command)));
  }
  dialog.showModal();
}

function valueTable(cell, rows) {
  const names = ["image", "set", "level", "seed", "value", ""];
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const lines = rows.map((row) => {
    const line = element("tr", {}, element("th", { scope: "row" }, row.image),
      ...[row.dataset, row.level, row.seed, short(row.value)].map((text) => element("td", {}, String(text))));
    const look = element("td");
    if (window.showImage && (DATA.explorer.images[[row.dataset, row.level, row.image].join("|")] ?? {})[cell.method]) {
      const button = element("button", { type: "button" }, "look");
      button.addEventListener("click", () => {
        dialog.close();
        window.showImage(row.dataset, row.level, row.image, cell.method);
      });
      look.append(button);
    }
    line.append(look);
    return line;
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values per image" }, table);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-key]");
  if (button) explain(button.dataset.key);
  else if (event.target === dialog) dialog.close(); // the backdrop
});
