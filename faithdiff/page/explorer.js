"use strict";
// The image explorer: two methods under a slider, all methods side by side, or their difference.
// One view (scale, shift) serves every picture, so zoom and pan are locked across methods.

(() => {
  const { images, labels } = DATA.explorer;
  const stage = document.getElementById("stage");
  if (!stage) return;
  const byId = (id) => document.getElementById(id);
  const [place, left, right, view, order] = ["ex-place", "ex-left", "ex-right", "ex-view", "ex-order"].map(byId);
  const [slide, gain, strip, status] = ["ex-slide", "ex-gain", "ex-strip", "ex-status"].map(byId);
  const places = [...new Set(Object.keys(images).map((key) => key.split("|").slice(0, 2).join("|")))];
  const methods = Object.keys(labels).filter((m) => Object.values(images).some((shown) => shown[m]));
  const metrics = [...new Set(Object.keys(DATA.values).map((key) => key.split("|").slice(2).join("|")))];
  const better = {};
  const decimals = {};
  for (const cell of Object.values(DATA.cells)) {
    const metric = `${cell.metric}|${cell.protocol}`;
    better[metric] = cell.higher_is_better;
    if (cell.mean !== undefined) decimals[metric] = (cell.printed.split(".")[1] ?? "").length;
  }
  const named = (metric) => DATA.metrics[metric] ?? metric.split("|")[0];
  const where = new Map(DATA.places.map((at, i) => [at.join("|"), i]));
  let current = "";
  let camera = { scale: 1, x: 0, y: 0 }; // shift in shares of a pane

  const option = (value, text) => element("option", { value }, text);
  place.append(...places.map((key) => option(key, key.replace("|", ", Level "))));
  left.append(...methods.map((m) => option(m, labels[m])));
  right.append(...methods.map((m) => option(m, labels[m])));
  left.value = methods.includes("lq") ? "lq" : methods[0];
  right.value = methods.includes("faithdiff") ? "faithdiff" : methods[methods.length - 1];
  order.append(option("name", "by name"));
  for (const metric of metrics.filter((m) => better[m] !== undefined)) {
    const name = named(metric);
    order.append(option(`worst|${metric}`, `worst ${name} of the right`));
    order.append(option(`best|${metric}`, `best ${name} of the right`));
    order.append(option(`gap|${metric}`, `largest difference in ${name}`));
  }
  if (DATA.movers.length) order.append(option("moved", "most moved since the last commit"));

  // --- which image ---------------------------------------------------------------------------

  function value(method, metric, key) {
    const seeds = Object.keys(DATA.values).filter((k) => k.startsWith(`${method}|`) && k.endsWith(`|${metric}`));
    return seeds.length ? DATA.values[seeds[0]][where.get(key)] ?? null : null;
  }

  function sorted() {
    const keys = Object.keys(images).filter((key) => key.startsWith(`${place.value}|`));
    const [how, ...rest] = order.value.split("|");
    const metric = rest.join("|");
    if (how === "moved") {
      const moved = DATA.movers.map((m) => [m.dataset, m.level, m.image].join("|"));
      const rank = (key) => (moved.includes(key) ? moved.indexOf(key) : moved.length);
      return keys.sort((a, b) => rank(a) - rank(b));
    }
    if (how === "name") return keys;
    const sign = (how === "worst") === better[metric] ? 1 : -1;
    const score = (key) => {
      const own = value(right.value, metric, key);
      if (own === null) return Infinity;
      if (how !== "gap") return sign * own;
      const other = value(left.value, metric, key);
      return other === null ? Infinity : -Math.abs(own - other);
    };
    return keys.map((key) => [score(key), key]).sort((a, b) => a[0] - b[0]).map(([, key]) => key);
  }

  function fillStrip() {
    const keys = sorted();
    strip.replaceChildren(...keys.map((key) => {
      const shown = images[key];
      const file = shown[right.value] ?? shown.hq ?? Object.values(shown)[0];
      const name = key.split("|").slice(2).join("|");
      const picture = element("img", { loading: "lazy", src: file, alt: "", width: "86", height: "86" });
      const button = element("button", { type: "button", title: name }, picture, element("span", {}, name));
      button.dataset.image = key;
      button.addEventListener("click", () => show(key));
      return button;
    }));
    if (!keys.includes(current) || order.value !== "name") current = keys[0];
    show(current);
  }

  function step(by) {
    const keys = [...strip.children].map((button) => button.dataset.image);
    show(keys[(keys.indexOf(current) + by + keys.length) % keys.length]);
  }

  // --- how it is shown -------------------------------------------------------------------------

  function picture(method) {
    const file = images[current][method];
    return file ? element("img", { src: file, alt: `${current.split("|").slice(2).join("|")}: ${labels[method]}`, draggable: "false" }) : null;
  }

  function pane(method, text) {
    const made = element("div", { class: "pane" });
    const shown = picture(method);
    made.append(...(shown ? [shown] : []), element("span", { class: "name" }, shown ? text : `${text}: no picture`));
    return made;
  }

  function sliderPane() {
    const made = element("div", { class: "pane" });
    const [under, over] = [picture(right.value), picture(left.value)];
    const layer = element("div", { class: "layer" });
    if (over) layer.append(over);
    if (under) made.append(under);
    made.append(layer, element("div", { class: "bar" }),
      element("span", { class: "name" }, labels[left.value] + (over ? "" : ": no picture")),
      element("span", { class: "name right" }, labels[right.value] + (under ? "" : ": no picture")));
    return made;
  }

  function differencePane() {
    const canvas = element("canvas", { role: "img", "aria-label": `Difference of ${labels[left.value]} and ${labels[right.value]}` });
    const made = element("div", { class: "pane" }, canvas,
      element("span", { class: "name" }, `|${labels[left.value]} − ${labels[right.value]}|`));
    const pair = [picture(left.value), picture(right.value)];
    if (pair.includes(null)) return made;
    Promise.all(pair.map((img) => img.decode())).then(() => {
      // The browser blends: pages opened from disk may draw pictures, but not read their pixels.
      canvas.width = Math.max(...pair.map((img) => img.naturalWidth));
      canvas.height = Math.max(...pair.map((img) => img.naturalHeight));
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(pair[0], 0, 0, canvas.width, canvas.height);
      context.globalCompositeOperation = "difference";
      context.drawImage(pair[1], 0, 0, canvas.width, canvas.height);
      canvas.dataset.drawn = "true";
    });
    return made;
  }

  function show(key) {
    current = key;
    const mode = view.value;
    stage.className = mode === "grid" ? "grid" : "single";
    byId("viewer").className = stage.className;
    if (mode === "grid") stage.replaceChildren(...methods.filter((m) => images[key][m]).map((m) => pane(m, labels[m])));
    else stage.replaceChildren(mode === "slider" ? sliderPane() : differencePane());
    byId("ex-slide-label").hidden = mode !== "slider";
    byId("ex-gain-label").hidden = mode !== "difference";
    for (const button of strip.children) button.setAttribute("aria-pressed", String(button.dataset.image === key));
    update();
    tell();
  }

  function tell() {
    const [dataset, level, ...name] = current.split("|");
    const parts = [`${name.join("|")} (${dataset}, Level ${level})`];
    const metric = order.value.split("|").slice(1).join("|") || metrics.find((m) => m.startsWith("psnr|")) || metrics[0];
    for (const method of view.value === "grid" ? [right.value] : [left.value, right.value]) {
      const found = metric ? value(method, metric, current) : null;
      if (found !== null) parts.push(`${labels[method]}: ${named(metric)} ${found.toFixed(decimals[metric] ?? 4)}`);
    }
    status.textContent = parts.join("; ");
  }

  function update() {
    const { scale, x, y } = camera;
    // Not zoomed in, a finger that moves up or down scrolls the page.
    stage.style.touchAction = scale > 1 ? "none" : "pan-y";
    stage.style.cursor = scale > 1 ? "grab" : view.value === "slider" ? "ew-resize" : "default";
    for (const shown of stage.querySelectorAll("img, canvas")) {
      shown.style.transform = `translate(${x * 100}%, ${y * 100}%) scale(${scale})`;
    }
    for (const canvas of stage.querySelectorAll("canvas")) canvas.style.filter = `brightness(${gain.value})`;
    const layer = stage.querySelector(".layer");
    if (layer) {
      layer.style.clipPath = `inset(0 ${100 - slide.value}% 0 0)`;
      stage.querySelector(".bar").style.left = `${slide.value}%`;
    }
  }

  // --- zoom and pan, the same for all ----------------------------------------------------------

  function look(scale, x, y) {
    const least = 1 - scale; // no edge of the picture leaves the edge of its pane
    camera = { scale, x: Math.min(0, Math.max(least, x)), y: Math.min(0, Math.max(least, y)) };
    requestAnimationFrame(update);
  }

  function zoom(factor, atX = 0.5, atY = 0.5) {
    const scale = Math.min(16, Math.max(1, camera.scale * factor));
    const grown = scale / camera.scale;
    look(scale, atX - (atX - camera.x) * grown, atY - (atY - camera.y) * grown);
  }

  function within(event) {
    const box = (event.target.closest?.(".pane") ?? stage.querySelector(".pane")).getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, box.width];
  }

  const pointers = new Map();
  stage.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    const [x] = within(event);
    // Near the bar the pointer takes the bar, elsewhere the picture.
    stage.dataset.drags = view.value === "slider" && (Math.abs(x * 100 - slide.value) < 8 || camera.scale === 1) ? "bar" : "picture";
    if (stage.dataset.drags === "bar") slideTo(x);
  });
  function slideTo(x) {
    slide.value = Math.round(100 * Math.min(1, Math.max(0, x)));
    update();
  }
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const box = stage.querySelector(".pane").getBoundingClientRect();
    if (pointers.size === 2) {
      const [other] = [...pointers.values()].filter((each) => each.pointerId !== event.pointerId);
      const apart = (each) => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY);
      if (apart(before) > 0) zoom(apart(event) / apart(before));
    } else if (stage.dataset.drags === "bar") slideTo((event.clientX - box.left) / box.width);
    else {
      look(camera.scale, camera.x + (event.clientX - before.clientX) / box.width,
        camera.y + (event.clientY - before.clientY) / box.height);
    }
    pointers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  stage.addEventListener("wheel", (event) => {
    // Whoever scrolls past shall not zoom: that takes Ctrl, or a click on the picture before.
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== stage) return;
    event.preventDefault();
    const [x, y] = within(event);
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, x, y);
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = 0.1;
    const keys = {
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: () => look(1, 0, 0),
      ArrowLeft: () => look(camera.scale, camera.x + pan, camera.y),
      ArrowRight: () => look(camera.scale, camera.x - pan, camera.y),
      ArrowUp: () => look(camera.scale, camera.x, camera.y + pan),
      ArrowDown: () => look(camera.scale, camera.x, camera.y - pan),
      n: () => step(1), p: () => step(-1),
    };
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  slide.addEventListener("input", update);
  gain.addEventListener("input", update);
  view.addEventListener("input", () => show(current));
  for (const control of [place, order, left, right]) control.addEventListener("input", fillStrip);

  window.showImage = (dataset, level, image, method) => {
    place.value = `${dataset}|${level}`;
    order.value = "name";
    right.value = method;
    current = [dataset, level, image].join("|");
    fillStrip();
    byId("images").scrollIntoView();
    stage.focus({ preventScroll: true });
  };
  fillStrip();
})();
