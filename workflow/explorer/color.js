// The color of every cell, from what is colored by, what is selected and what is hovered.

/** What the cells are colored by, as codes and names: categories or numbers. */
function coloring(atlas, state) {
  if (state.color === -1) {
    const values = new Uint16Array(atlas.drawn).fill(NONE);
    return { name: '', names: [], counts: [], values, missing: atlas.cells };
  }
  if (state.color !== 'clusters') return atlas.columns[state.color];
  const tree = currentTree(atlas, state);
  tree.shown ??= [];
  return (tree.shown[state.level] ??= clusterColumn(atlas, tree, state.level));
}

function clusterColumn(atlas, tree, level) {
  const nodes = nodesOf(tree, level);
  const counts = nodes.map((node) => tree.sizes[node]);
  return {
    name: tree.columns[level],
    clusters: true,
    nodes,
    counts,
    names: nodes.map((node) => tree.labels[node]),
    values: tree.codes[level].map((node) => (node === NONE ? NONE : tree.place[node])),
    missing: atlas.cells - counts.reduce((a, b) => a + b, 0),
  };
}

function currentTree(atlas, state) {
  return atlas.methods[state.method].trees[state.tree];
}

function categoryColor(atlas, category) {
  return atlas.palette[category % atlas.palette.length];
}

/** The color of a place on the scale of a column of numbers, from its two ends. */
function scaleColor(atlas, column, value) {
  const [low, high] = column.ends;
  const share = high > low ? (value - low) / (high - low) : 0.5;
  return atlas.scale[Math.max(0, Math.min(255, Math.round(share * 255)))];
}

/** RGBA of all cells, a number each; of those outside the mask a tint is left. */
function cellColors(atlas, column, mask) {
  const colors = new Uint32Array(atlas.drawn);
  // An entry per code, made when it is met: 200,000 cells are a look-up each.
  const table = new Uint32Array(NONE + 1);
  const tints = new Uint32Array(NONE + 1);
  const tint = (color) => color.map((v) => Math.round(234 + 0.16 * (v - 234)));
  const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const find = (code) => {
    if (code === NONE) return atlas.missing;
    if (column.names) return categoryColor(atlas, code);
    return scaleColor(atlas, column, column.min + column.step * code);
  };
  for (let cell = 0; cell < atlas.drawn; cell++) {
    const code = column.values[cell];
    if (mask && !mask[cell]) colors[cell] = tints[code] ||= packed(tint(find(code)));
    else colors[cell] = table[code] ||= packed(find(code));
  }
  return colors;
}

/** Cells from the lowest to the topmost: without a value, outside the mask, inside. */
function drawOrder(atlas, column, mask) {
  const order = new Uint32Array(atlas.drawn);
  const layer = (cell) =>
    mask && mask[cell] ? 2 : column.values[cell] === NONE ? 0 : mask ? 1 : 2;
  let next = 0;
  for (let wanted = 0; wanted < 3; wanted++) {
    for (const cell of atlas.order) if (layer(cell) === wanted) order[next++] = cell;
  }
  return order;
}

/** Which cells a selection or a hovered legend entry holds. */
function maskOf(atlas, chosen) {
  if (!chosen) return null;
  const mask = new Uint8Array(atlas.drawn);
  let values;
  let wanted;
  if (chosen.kind === 'node') {
    const tree = atlas.methods[chosen.method].trees[chosen.tree];
    values = tree.codes[tree.levels[chosen.node]];
    wanted = chosen.node;
  } else {
    values = atlas.columns[chosen.column].values;
    wanted = chosen.category;
  }
  for (let cell = 0; cell < atlas.drawn; cell++) mask[cell] = values[cell] === wanted ? 1 : 0;
  return mask;
}

/** Where the name of each category stands: its densest part, where it has most of the cells. */
function labelPlaces(method, column) {
  column.places ??= new Map();
  if (!column.places.has(method)) column.places.set(method, findPlaces(method, column));
  return column.places.get(method);
}

function findPlaces(method, column) {
  const grid = 48;
  const n = column.names.length;
  const own = new Float32Array(n * grid * grid);
  const all = new Float32Array(grid * grid);
  const size = new Uint32Array(n);
  column.values.forEach((category, cell) => {
    if (category === NONE || method.x[cell] === NONE) return;
    const square = squareOf(method.x[cell], method.y[cell], grid);
    own[category * grid * grid + square]++;
    all[square]++;
    size[category]++;
  });
  const places = [];
  for (let category = 0; category < n; category++) {
    if (!size[category]) continue;
    const counts = own.subarray(category * grid * grid, (category + 1) * grid * grid);
    places.push({ category, size: size[category], ...densest(counts, all, grid) });
  }
  return places.sort((a, b) => b.size - a.size);
}

function squareOf(x, y, grid) {
  const at = (v) => Math.min(grid - 1, Math.floor((v / NONE) * grid));
  return at(y) * grid + at(x);
}

/** The middle of the squares around the one with the best score: cells times their share. */
function densest(counts, all, grid) {
  let best = -1;
  let top = 0;
  for (let square = 0; square < counts.length; square++) {
    if (!counts[square]) continue;
    let near = 0;
    let crowd = 0;
    for (const step of [0, 1, -1, grid, -grid, grid + 1, grid - 1, 1 - grid, -1 - grid]) {
      near += counts[square + step] || 0;
      crowd += all[square + step] || 0;
    }
    if ((near * near) / crowd > best) [best, top] = [(near * near) / crowd, square];
  }
  let x = 0;
  let y = 0;
  let weight = 0;
  for (let row = -2; row <= 2; row++) {
    for (let side = -2; side <= 2; side++) {
      const n = counts[top + row * grid + side] || 0;
      weight += n;
      x += n * ((top % grid) + side + 0.5);
      y += n * (Math.floor(top / grid) + row + 0.5);
    }
  }
  return { x: x / weight / grid, y: y / weight / grid };
}

/** The legend on an exported picture: categories in columns, or the scale. */
function paintLegend(context, atlas, column, { lines, columns }) {
  context.font = '600 12px system-ui, sans-serif';
  context.fillStyle = '#1d2733';
  context.fillText(column.name, 0, -8, 180);
  context.font = '12px system-ui, sans-serif';
  if (!column.names) {
    for (let i = 0; i < 160; i++) {
      context.fillStyle = css(atlas.scale[Math.round((i / 159) * 255)]);
      context.fillRect(i, 8, 1.5, 12);
    }
    context.fillStyle = '#1d2733';
    context.fillText(short(column.ends[0]), 0, 36);
    context.textAlign = 'right';
    context.fillText(short(column.ends[1]), 160, 36);
    return;
  }
  const room = lines * columns;
  column.names.slice(0, room).forEach((name, category) => {
    const x = 190 * Math.floor(category / lines);
    const y = 14 + 18 * (category % lines);
    context.fillStyle = css(categoryColor(atlas, category));
    context.beginPath();
    context.arc(x + 5, y - 4, 5, 0, 2 * Math.PI);
    context.fill();
    context.fillStyle = '#1d2733';
    const last = category === room - 1 && column.names.length > room;
    context.fillText(last ? `and ${column.names.length - category} more` : name, x + 16, y, 160);
  });
}
