// The cells of one method on a canvas: drawn with WebGL, or pixel by pixel where there is none.

const VERTEX = `#version 300 es
in vec2 place;
in vec3 color;
uniform vec4 view;
uniform float size;
out vec3 ink;
void main() {
  ink = color;
  // A place of 1 is that of a cell which has none: outside of what is drawn.
  gl_Position = place.x == 1.0 ? vec4(2) : vec4(place * view.xy + view.zw, 0, 1);
  gl_PointSize = max(size, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 ink;
uniform float size;
out vec4 result;
void main() {
  float edge = 0.5 * size + 0.5 - length(gl_PointCoord - 0.5) * max(size, 1.0);
  float alpha = clamp(edge, 0.0, 1.0) * min(size, 1.0) * 0.92;
  result = vec4(ink * alpha, alpha);
}`;

/** Draw with WebGL 2; null where the browser has none. */
function glRenderer(canvas, method) {
  const gl = canvas.getContext('webgl2', { antialias: false });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [view, size] = [uniform('view'), uniform('size')];
  const attribute = (name, length, type) => {
    const buffer = gl.createBuffer();
    const index = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribPointer(index, length, type, true, 0, 0);
    return (data) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    };
  };
  const places = new Uint16Array(2 * method.x.length);
  method.x.forEach((x, i) => {
    places[2 * i] = x;
    places[2 * i + 1] = method.y[i];
  });
  attribute('place', 2, gl.UNSIGNED_SHORT)(places);
  const setColors = attribute('color', 4, gl.UNSIGNED_BYTE);
  const lists = [gl.createBuffer(), gl.createBuffer()]; // all cells, and some
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.clearColor(0, 0, 0, 0);
  let counts = [0, 0];
  return {
    name: 'webgl',
    setCells(colors, orders) {
      setColors(new Uint8Array(colors.buffer));
      orders.forEach((order, k) => {
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, lists[k]);
        gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
      });
      counts = orders.map((order) => order.length);
    },
    draw({ scale, left, top, diameter }, some) {
      const { width, height } = canvas;
      gl.viewport(0, 0, width, height);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform4f(
        view,
        (2 * scale) / width,
        (2 * scale) / height,
        (2 * left) / width - 1,
        1 - (2 * (top + scale)) / height,
      );
      gl.uniform1f(size, diameter);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, lists[Number(some)]);
      gl.drawElements(gl.POINTS, counts[Number(some)], gl.UNSIGNED_INT, 0);
    },
    /** Tell, when all that was asked for is drawn. */
    whenDone(tell) {
      const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
      gl.flush();
      const look = () => {
        if (gl.clientWaitSync(sync, 0, 0) === gl.TIMEOUT_EXPIRED) setTimeout(look, 4);
        else gl.deleteSync(sync), tell();
      };
      look();
    },
  };
}

/** Draw by setting pixels: slower, but 200,000 cells still take a few hundredths of a second. */
function rasterRenderer(canvas, method) {
  const context = canvas.getContext('2d');
  let lists = [];
  let pixels = new Uint32Array();
  return {
    name: '2d',
    whenDone: (tell) => tell(),
    setCells(colors, orders) {
      pixels = colors;
      lists = orders;
    },
    draw({ scale, left, top, diameter }, some) {
      const { width, height } = canvas;
      const image = context.createImageData(width, height);
      const out = new Uint32Array(image.data.buffer);
      const radius = Math.max(diameter / 2, 0.5);
      const reach = Math.floor(radius);
      const rows = [];
      for (let y = -reach; y <= reach; y++) {
        rows.push([y, Math.floor(Math.sqrt(Math.max(radius * radius - y * y, 0)))]);
      }
      for (const cell of lists[Number(some)]) {
        if (method.x[cell] === NONE) continue;
        const x = Math.round(left + (scale * method.x[cell]) / NONE);
        const y = Math.round(top + scale * (1 - method.y[cell] / NONE));
        for (const [step, half] of rows) {
          const row = y + step;
          if (row < 0 || row >= height) continue;
          const from = Math.max(x - half, 0);
          const to = Math.min(x + half, width - 1);
          if (to >= from) out.fill(pixels[cell], row * width + from, row * width + to + 1);
        }
      }
      context.putImageData(image, 0, 0);
    },
  };
}

const FEW = 20000; // cells drawn while the picture moves, where all take too long
const SLOW = 25; // milliseconds

/** Every so manieth cell of an order: at random, since the order is. */
function thinned(order) {
  const step = Math.ceil(order.length / FEW);
  return step > 1 ? order.filter((_, i) => i % step === 0) : order;
}

/** Put the cells of a method into a box: canvas, labels, pan, zoom, hover and click. */
function makePlot(box, method, { onHover, onPick }) {
  const layer = (name) => {
    const canvas = document.createElement('canvas');
    canvas.className = name;
    canvas.setAttribute('aria-hidden', 'true');
    box.append(canvas);
    return canvas;
  };
  let canvas = layer('cells');
  const overlay = layer('labels');
  let renderer = glRenderer(canvas, method);
  if (!renderer) useRaster();
  let shown = null;
  let labels = [];
  let frame = 0;
  let cost = 0; // milliseconds that a whole picture took
  let settle = 0;
  const view = { x: 0.5, y: 0.5, zoom: 1 };
  const find = finder(method);
  const bounds = extentOf(method);

  function useRaster() {
    const fresh = canvas.cloneNode();
    canvas.replaceWith(fresh);
    canvas = fresh;
    renderer = rasterRenderer(canvas, method);
  }

  /** Where the unit square of the layout lies, in pixels of a canvas. */
  function geometry(ratio) {
    const [width, height] = [box.clientWidth * ratio, box.clientHeight * ratio];
    const fit = Math.min(width / bounds.width, height / bounds.height);
    const scale = fit * 0.93 * view.zoom;
    const cells = Math.max(method.x.length, 1);
    const base = Math.sqrt((0.24 * width * height) / cells);
    const diameter = Math.min(Math.max(base, 1.3 * ratio), 7 * ratio) * view.zoom ** 0.45;
    return {
      scale,
      diameter: Math.min(diameter, 16 * ratio),
      left: width / 2 - scale * (bounds.x + (view.x - 0.5)),
      top: height / 2 - scale * (1 - bounds.y - (view.y - 0.5)),
    };
  }

  function render(ratio = window.devicePixelRatio || 1, some = false) {
    const [width, height] = [box.clientWidth, box.clientHeight].map((v) => Math.round(v * ratio));
    if (!width || !height || !shown) return;
    for (const item of [canvas, overlay]) {
      if (item.width !== width) item.width = width;
      if (item.height !== height) item.height = height;
    }
    const place = geometry(ratio);
    const start = performance.now();
    if (some) place.diameter *= 1.4;
    renderer.draw(place, some);
    if (!some) renderer.whenDone(() => (cost = performance.now() - start));
    drawLabels(overlay.getContext('2d'), labels, place, ratio);
  }

  function redraw() {
    if (!frame) frame = requestAnimationFrame(() => ((frame = 0), render()));
  }

  /** Redraw while the view changes: some of the cells where all take too long, all at rest. */
  function move() {
    if (cost < SLOW) return redraw();
    clearTimeout(settle);
    settle = setTimeout(redraw, 150);
    if (!frame) frame = requestAnimationFrame(() => ((frame = 0), render(undefined, true)));
    return undefined;
  }

  function zoomBy(factor, px = box.clientWidth / 2, py = box.clientHeight / 2) {
    const before = geometry(1).scale;
    const zoom = Math.min(Math.max(view.zoom * factor, 0.5), 200);
    const after = (before * zoom) / view.zoom;
    // What is under the pointer stays there.
    view.x += (px - box.clientWidth / 2) * (1 / before - 1 / after);
    view.y -= (py - box.clientHeight / 2) * (1 / before - 1 / after);
    view.zoom = zoom;
    move();
  }

  function panBy(dx, dy) {
    const { scale } = geometry(1);
    view.x -= dx / scale;
    view.y += dy / scale;
    move();
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
    return find(x, y, Math.max(diameter, 5) / scale);
  }

  listen(box, { zoomBy, panBy, reset, cellAt, onHover, onPick });
  canvas.addEventListener('webglcontextlost', () => {
    useRaster();
    if (shown) renderer.setCells(...shown);
    redraw();
  });
  const observer = new ResizeObserver(redraw);
  observer.observe(box);
  return {
    method,
    zoomBy,
    reset,
    render,
    /** Where a cell stands in the box, in pixels. */
    placeOf(cell) {
      const { scale, left, top } = geometry(1);
      const [x, y] = [method.x[cell] / NONE, method.y[cell] / NONE];
      return [left + scale * x, top + scale * (1 - y)];
    },
    get renderer() {
      return renderer.name;
    },
    /** Show colors in an order, as `cellColors` and `drawOrder` return them, and labels. */
    show(colors, order, names) {
      shown = [colors, [order, thinned(order)]];
      labels = names;
      renderer.setCells(...shown);
      redraw();
    },
    /** Both layers on a canvas of the caller's, `ratio` times as many pixels as on screen. */
    copyTo(context, x, y, ratio) {
      render(ratio);
      context.drawImage(canvas, x, y);
      context.drawImage(overlay, x, y);
      render();
    },
    remove() {
      observer.disconnect();
      box.replaceChildren();
    },
  };
}

/** The window of a layout: it is fitted to what it spans, whatever its shape. */
function extentOf(method) {
  const low = [NONE, NONE];
  const high = [0, 0];
  method.x.forEach((x, i) => {
    if (x === NONE) return;
    [x, method.y[i]].forEach((v, k) => {
      if (v < low[k]) low[k] = v;
      if (v > high[k]) high[k] = v;
    });
  });
  const span = (k) => Math.max(high[k] - low[k], NONE / 50) / NONE;
  const middle = (k) => (high[k] + low[k]) / 2 / NONE;
  return { width: span(0), height: span(1), x: middle(0), y: middle(1) };
}

/** Pointer, wheel and keys of a plot. */
function listen(box, { zoomBy, panBy, reset, cellAt, onHover, onPick }) {
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
  const wheel = (event) => {
    event.preventDefault();
    const frame = box.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 16 : 1;
    const factor = Math.exp(-event.deltaY * lines * 0.0015);
    zoomBy(factor, event.clientX - frame.left, event.clientY - frame.top);
  };
  box.addEventListener('wheel', wheel, { passive: false });
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

/** Prepare to find the cell nearest to a place: cells sorted into squares, once. */
function finder(method) {
  const grid = 256;
  let starts = null;
  let items = null;
  function prepare() {
    const n = method.x.length;
    starts = new Uint32Array(grid * grid + 1);
    const squares = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      squares[i] = squareOf(method.x[i], method.y[i], grid);
      starts[squares[i] + 1]++;
    }
    for (let i = 0; i < grid * grid; i++) starts[i + 1] += starts[i];
    const next = starts.slice();
    items = new Uint32Array(n);
    for (let i = 0; i < n; i++) items[next[squares[i]]++] = i;
  }
  return (x, y, reach) => {
    if (!starts) prepare();
    const clamp = (v) => Math.min(Math.max(Math.floor(v * grid), 0), grid - 1);
    let best = -1;
    let least = reach * reach;
    for (let row = clamp(y - reach); row <= clamp(y + reach); row++) {
      for (let column = clamp(x - reach); column <= clamp(x + reach); column++) {
        const square = row * grid + column;
        for (let k = starts[square]; k < starts[square + 1]; k++) {
          const cell = items[k];
          if (method.x[cell] === NONE) continue;
          const far = (method.x[cell] / NONE - x) ** 2 + (method.y[cell] / NONE - y) ** 2;
          if (far < least) [best, least] = [cell, far];
        }
      }
    }
    return best;
  };
}

/** Write names on the cells, the largest first; those without room show when zoomed in. */
function drawLabels(context, labels, { scale, left, top }, ratio) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.lineJoin = 'round';
  context.lineWidth = 3.5 * ratio;
  context.strokeStyle = 'rgb(255 255 255 / 92%)';
  const taken = [];
  for (const { text, x, y, strong } of labels) {
    const half = context.measureText(text).width / 2 + 2 * ratio;
    const high = 8 * ratio;
    const [px, py] = [left + scale * x, top + scale * (1 - y)];
    const box = [px - half, py - high, px + half, py + high];
    const hit = (other) =>
      box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1];
    if (taken.some(hit)) continue;
    taken.push(box);
    context.strokeText(text, px, py);
    context.fillStyle = strong === false ? '#9aa3ad' : '#1d2733';
    context.fillText(text, px, py);
  }
}
