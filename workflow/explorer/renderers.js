// Drawing the cells of one method on a canvas: with WebGL 2, or pixel by pixel where there is none.

const VERTEX = `#version 300 es
in vec2 position;
in vec3 color;
uniform vec4 view;
uniform float size;
out vec3 cellColor;
void main() {
  cellColor = color;
  // Cells without coordinates have 1 (65535), others less: put them outside of what is drawn.
  gl_Position = position.x == 1.0 ? vec4(2) : vec4(position * view.xy + view.zw, 0, 1);
  gl_PointSize = max(size, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 cellColor;
uniform float size;
out vec4 result;
void main() {
  float edge = 0.5 * size + 0.5 - length(gl_PointCoord - 0.5) * max(size, 1.0);
  float alpha = clamp(edge, 0.0, 1.0) * min(size, 1.0) * 0.92;
  result = vec4(cellColor * alpha, alpha);
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
  const view = gl.getUniformLocation(program, 'view');
  const size = gl.getUniformLocation(program, 'size');
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
  const positions = new Uint16Array(2 * method.x.length);
  method.x.forEach((x, cell) => {
    positions[2 * cell] = x;
    positions[2 * cell + 1] = method.y[cell];
  });
  attribute('position', 2, gl.UNSIGNED_SHORT)(positions);
  const setColors = attribute('color', 4, gl.UNSIGNED_BYTE);
  const orderBuffers = [gl.createBuffer(), gl.createBuffer()]; // all cells, and a sample
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.clearColor(0, 0, 0, 0);
  let counts = [0, 0];
  return {
    name: 'webgl',
    setCells(colors, orders) {
      setColors(new Uint8Array(colors.buffer));
      orders.forEach((order, k) => {
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, orderBuffers[k]);
        gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
      });
      counts = orders.map((order) => order.length);
    },
    draw({ scale, left, top, diameter }, which) {
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
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, orderBuffers[which]);
      gl.drawElements(gl.POINTS, counts[which], gl.UNSIGNED_INT, 0);
    },
    /** Call back when everything requested so far is drawn. */
    whenDone(callback) {
      const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
      gl.flush();
      const check = () => {
        if (gl.clientWaitSync(sync, 0, 0) === gl.TIMEOUT_EXPIRED) setTimeout(check, 4);
        else gl.deleteSync(sync), callback();
      };
      check();
    },
  };
}

/** Draw by setting pixels: slower, but 200,000 cells still take only a few hundredths of a second. */
function rasterRenderer(canvas, method) {
  const context = canvas.getContext('2d');
  let cellColors = new Uint32Array();
  let cellOrders = [];
  return {
    name: '2d',
    whenDone: (callback) => callback(),
    setCells(colors, orders) {
      cellColors = colors;
      cellOrders = orders;
    },
    draw({ scale, left, top, diameter }, which) {
      const { width, height } = canvas;
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const radius = Math.max(diameter / 2, 0.5);
      const reach = Math.floor(radius);
      const lines = []; // of a dot: row from its center, half of its width
      for (let y = -reach; y <= reach; y++) {
        lines.push([y, Math.floor(Math.sqrt(Math.max(radius * radius - y * y, 0)))]);
      }
      for (const cell of cellOrders[which]) {
        if (method.x[cell] === MISSING_CODE) continue;
        const x = Math.round(left + (scale * method.x[cell]) / MISSING_CODE);
        const y = Math.round(top + scale * (1 - method.y[cell] / MISSING_CODE));
        for (const [step, half] of lines) {
          const row = y + step;
          if (row < 0 || row >= height) continue;
          const first = Math.max(x - half, 0);
          const last = Math.min(x + half, width - 1);
          if (last >= first) pixels.fill(cellColors[cell], row * width + first, row * width + last + 1);
        }
      }
      context.putImageData(image, 0, 0);
    },
  };
}
