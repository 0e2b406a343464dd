// One plot: the cells of a method in a box, with labels, pan, zoom, hover and click.

const SAMPLE = 20000; // cells drawn while the view changes, where drawing all is slow
const SLOW_FRAME = 25; // milliseconds
const [ALL_CELLS, SAMPLED_CELLS] = [0, 1]; // which order a renderer draws

/** Take every k-th cell of an order: a random sample, since the order is random. */
function sampleOrder(order) {
  const step = Math.ceil(order.length / SAMPLE);
  return step > 1 ? order.filter((_, i) => i % step === 0) : order;
}

/** Put the cells of a method into a box. */
function makePlot(box, method, { onHover, onPick }) {
  const addCanvas = (name) => {
    const layer = make('canvas', { class: name, 'aria-hidden': 'true' });
    box.append(layer);
    return layer;
  };
  let canvas = addCanvas('cells');
  const labelCanvas = addCanvas('labels');
  let renderer = glRenderer(canvas, method);
  if (!renderer) useRaster();
  let cells = null; // arguments of `renderer.setCells`
  let labels = [];
  let frame = 0; // the animation frame that is requested
  let frameTime = 0; // milliseconds that drawing all cells took
  let restTimer = 0;
  const view = { x: 0.5, y: 0.5, zoom: 1 };
  const nearestCell = cellFinder(method);
  const extent = extentOf(method);

  function useRaster() {
    // A canvas has one kind of context for good.
    const replacement = canvas.cloneNode();
    canvas.replaceWith(replacement);
    canvas = replacement;
    renderer = rasterRenderer(canvas, method);
  }

  /** Where the unit square of the layout lies, in pixels of a canvas, and the size of a cell. */
  function geometry(ratio) {
    const [width, height] = [box.clientWidth * ratio, box.clientHeight * ratio];
    const scale = Math.min(width / extent.width, height / extent.height) * 0.93 * view.zoom;
    const perCell = Math.sqrt((0.24 * width * height) / Math.max(method.x.length, 1));
    const diameter = Math.min(Math.max(perCell, 1.3 * ratio), 7 * ratio) * view.zoom ** 0.45;
    return {
      scale,
      diameter: Math.min(diameter, 16 * ratio),
      left: width / 2 - scale * (extent.x + (view.x - 0.5)),
      top: height / 2 - scale * (1 - extent.y - (view.y - 0.5)),
    };
  }

  function render(ratio = window.devicePixelRatio || 1, which = ALL_CELLS) {
    const [width, height] = [box.clientWidth, box.clientHeight].map((v) => Math.round(v * ratio));
    if (!width || !height || !cells) return;
    for (const layer of [canvas, labelCanvas]) {
      if (layer.width !== width) layer.width = width;
      if (layer.height !== height) layer.height = height;
    }
    const place = geometry(ratio);
    const start = performance.now();
    if (which === SAMPLED_CELLS) place.diameter *= 1.4;
    renderer.draw(place, which);
    if (which === ALL_CELLS) renderer.whenDone(() => (frameTime = performance.now() - start));
    drawLabels(labelCanvas.getContext('2d'), labels, place, ratio);
  }

  function redraw(which = ALL_CELLS) {
    if (!frame) frame = requestAnimationFrame(() => ((frame = 0), render(undefined, which)));
  }

  /** Redraw while the view changes: a sample where drawing all cells is slow, all cells at rest. */
  function redrawMoving() {
    if (frameTime < SLOW_FRAME) return redraw();
    clearTimeout(restTimer);
    restTimer = setTimeout(redraw, 150);
    return redraw(SAMPLED_CELLS);
  }

  function zoomBy(factor, px = box.clientWidth / 2, py = box.clientHeight / 2) {
    const before = geometry(1).scale;
    const zoom = Math.min(Math.max(view.zoom * factor, 0.5), 200);
    const after = (before * zoom) / view.zoom;
    // What is under the pointer stays there.
    view.x += (px - box.clientWidth / 2) * (1 / before - 1 / after);
    view.y -= (py - box.clientHeight / 2) * (1 / before - 1 / after);
    view.zoom = zoom;
    redrawMoving();
  }

  function panBy(dx, dy) {
    const { scale } = geometry(1);
    view.x -= dx / scale;
    view.y += dy / scale;
    redrawMoving();
  }

  function reset() {
    Object.assign(view, { x: 0.5, y: 0.5, zoom: 1 });
    redraw();
  }

  function cellAt(event) {
    const frameBox = box.getBoundingClientRect();
    const { scale, left, top, diameter } = geometry(1);
    const x = (event.clientX - frameBox.left - left) / scale;
    const y = 1 - (event.clientY - frameBox.top - top) / scale;
    return nearestCell(x, y, Math.max(diameter, 5) / scale);
  }

  listenPlot(box, { zoomBy, panBy, reset, cellAt, onHover, onPick });
  canvas.addEventListener('webglcontextlost', () => {
    useRaster();
    if (cells) renderer.setCells(...cells);
    redraw();
  });
  const observer = new ResizeObserver(() => redraw());
  observer.observe(box);
  return {
    method,
    box,
    zoomBy,
    reset,
    /** The position of a cell in the box, in pixels. */
    positionOf(cell) {
      const { scale, left, top } = geometry(1);
      const [x, y] = [method.x[cell] / MISSING_CODE, method.y[cell] / MISSING_CODE];
      return [left + scale * x, top + scale * (1 - y)];
    },
    get renderer() {
      return renderer.name;
    },
    /** Show colors in an order, as `cellColors` and `drawOrder` return them, and labels. */
    show(colors, order, newLabels) {
      cells = [colors, [order, sampleOrder(order)]];
      labels = newLabels;
      renderer.setCells(...cells);
      redraw();
    },
    /** Draw cells and labels on another canvas, with `ratio` pixels for each CSS pixel. */
    copyTo(context, x, y, ratio) {
      render(ratio);
      context.drawImage(canvas, x, y);
      context.drawImage(labelCanvas, x, y);
      render();
    },
    remove() {
      observer.disconnect();
      box.replaceChildren();
    },
  };
}

/** Size and center of a layout, whatever its shape, as fractions of its unit square. */
function extentOf(method) {
  const low = [MISSING_CODE, MISSING_CODE];
  const high = [0, 0];
  method.x.forEach((x, cell) => {
    if (x === MISSING_CODE) return;
    [x, method.y[cell]].forEach((v, k) => {
      if (v < low[k]) low[k] = v;
      if (v > high[k]) high[k] = v;
    });
  });
  const span = (k) => Math.max(high[k] - low[k], MISSING_CODE / 50) / MISSING_CODE;
  const center = (k) => (high[k] + low[k]) / 2 / MISSING_CODE;
  return { width: span(0), height: span(1), x: center(0), y: center(1) };
}

/** Listen to pointer, wheel and keys of a plot. */
function listenPlot(box, { zoomBy, panBy, reset, cellAt, onHover, onPick }) {
  let drag = null;
  box.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    drag = { x: event.clientX, y: event.clientY, moved: false };
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener('pointermove', (event) => {
    if (!drag) return onHover(cellAt(event), event);
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 4) return undefined;
    Object.assign(drag, { x: event.clientX, y: event.clientY, moved: true });
    box.classList.add('dragged');
    onHover(-1, event);
    return panBy(dx, dy);
  });
  box.addEventListener('pointerup', (event) => {
    if (drag && !drag.moved) onPick(cellAt(event));
    drag = null;
    box.classList.remove('dragged');
  });
  box.addEventListener('pointerleave', (event) => onHover(-1, event));
  box.addEventListener('dblclick', reset);
  const onWheel = (event) => {
    event.preventDefault();
    const frame = box.getBoundingClientRect();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1); // 1: in lines
    zoomBy(Math.exp(-pixels * 0.0015), event.clientX - frame.left, event.clientY - frame.top);
  };
  box.addEventListener('wheel', onWheel, { passive: false });
  const keys = {
    ArrowLeft: () => panBy(40, 0),
    ArrowRight: () => panBy(-40, 0),
    ArrowUp: () => panBy(0, 40),
    ArrowDown: () => panBy(0, -40),
    '+': () => zoomBy(1.25),
    '=': () => zoomBy(1.25),
    '-': () => zoomBy(0.8),
    0: reset,
  };
  box.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || !keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation();
  });
}

/** Make a function that finds the cell nearest to a position; it sorts cells into a grid once. */
function cellFinder(method) {
  const grid = 256;
  let starts = null; // of each square in `cells`
  let cells = null;
  function sortCells() {
    const n = method.x.length;
    starts = new Uint32Array(grid * grid + 1);
    const squares = new Uint32Array(n);
    for (let cell = 0; cell < n; cell++) {
      squares[cell] = gridSquare(method.x[cell], method.y[cell], grid);
      starts[squares[cell] + 1]++;
    }
    for (let i = 0; i < grid * grid; i++) starts[i + 1] += starts[i];
    const next = starts.slice();
    cells = new Uint32Array(n);
    for (let cell = 0; cell < n; cell++) cells[next[squares[cell]]++] = cell;
  }
  return (x, y, reach) => {
    if (!starts) sortCells();
    const clamp = (v) => Math.min(Math.max(Math.floor(v * grid), 0), grid - 1);
    let nearest = -1;
    let least = reach * reach;
    for (let row = clamp(y - reach); row <= clamp(y + reach); row++) {
      for (let column = clamp(x - reach); column <= clamp(x + reach); column++) {
        const square = row * grid + column;
        for (let k = starts[square]; k < starts[square + 1]; k++) {
          const cell = cells[k];
          if (method.x[cell] === MISSING_CODE) continue;
          const dx = method.x[cell] / MISSING_CODE - x;
          const dy = method.y[cell] / MISSING_CODE - y;
          const squared = dx * dx + dy * dy;
          if (squared < least) [nearest, least] = [cell, squared];
        }
      }
    }
    return nearest;
  };
}
