// Names of clusters on the cells: where each is written, and writing it.

/** Where the name of each category is written in a layout, the largest category first. */
function labelPositions(method, column) {
  column.labelPositions ??= new Map();
  if (!column.labelPositions.has(method)) {
    column.labelPositions.set(method, findLabelPositions(method, column));
  }
  return column.labelPositions.get(method);
}

function findLabelPositions(method, column) {
  const grid = 48;
  const n = column.names.length;
  const counts = new Float32Array(n * grid * grid);
  const allCounts = new Float32Array(grid * grid);
  const sizes = new Uint32Array(n);
  column.values.forEach((category, cell) => {
    if (category === MISSING_CODE || method.x[cell] === MISSING_CODE) return;
    const square = gridSquare(method.x[cell], method.y[cell], grid);
    counts[category * grid * grid + square]++;
    allCounts[square]++;
    sizes[category]++;
  });
  const positions = [];
  for (let category = 0; category < n; category++) {
    if (!sizes[category]) continue;
    const own = counts.subarray(category * grid * grid, (category + 1) * grid * grid);
    positions.push({ category, size: sizes[category], ...densestPosition(own, allCounts, grid) });
  }
  return positions.sort((a, b) => b.size - a.size);
}

/** The square of a grid over the layout in which a cell lies. */
function gridSquare(x, y, grid) {
  const index = (v) => Math.min(grid - 1, Math.floor((v / MISSING_CODE) * grid));
  return index(y) * grid + index(x);
}

/** The mean around the square where a category is densest: number of its cells times their share. */
function densestPosition(counts, allCounts, grid) {
  let bestScore = -1;
  let best = 0;
  for (let square = 0; square < counts.length; square++) {
    if (!counts[square]) continue;
    let near = 0;
    let allNear = 0;
    for (const step of [0, 1, -1, grid, -grid, grid + 1, grid - 1, 1 - grid, -1 - grid]) {
      near += counts[square + step] || 0;
      allNear += allCounts[square + step] || 0;
    }
    const score = (near * near) / allNear;
    if (score > bestScore) [bestScore, best] = [score, square];
  }
  let [x, y, weight] = [0, 0, 0];
  for (let row = -2; row <= 2; row++) {
    for (let column = -2; column <= 2; column++) {
      const n = counts[best + row * grid + column] || 0;
      weight += n;
      x += n * ((best % grid) + column + 0.5);
      y += n * (Math.floor(best / grid) + row + 0.5);
    }
  }
  return { x: x / weight / grid, y: y / weight / grid };
}

/** Write names on the cells, the largest first; those that would overlap appear when zoomed in. */
function drawLabels(context, labels, { scale, left, top }, ratio) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.lineJoin = 'round';
  context.lineWidth = 3.5 * ratio;
  context.strokeStyle = 'rgb(255 255 255 / 92%)';
  const boxes = [];
  for (const { text, x, y, strong } of labels) {
    const halfWidth = context.measureText(text).width / 2 + 2 * ratio;
    const halfHeight = 8 * ratio;
    const [px, py] = [left + scale * x, top + scale * (1 - y)];
    const box = [px - halfWidth, py - halfHeight, px + halfWidth, py + halfHeight];
    const overlaps = (other) =>
      box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1];
    if (boxes.some(overlaps)) continue;
    boxes.push(box);
    context.strokeText(text, px, py);
    context.fillStyle = strong ? TEXT_COLOR : '#9aa3ad';
    context.fillText(text, px, py);
  }
}
