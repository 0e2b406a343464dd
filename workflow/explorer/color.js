// The color of every cell, from what is colored by, what is selected and what is hovered.

const TEXT_COLOR = '#1d2733'; // on canvases; `--text` of the style sheet

/** The column that the cells are colored by: categories (with `names`) or numbers. */
function colorColumn(atlas, state) {
  if (state.color === -1) {
    const values = new Uint16Array(atlas.drawn).fill(MISSING_CODE);
    return { name: '', names: [], counts: [], values, missing: atlas.cells };
  }
  if (state.color !== 'clusters') return atlas.columns[state.color];
  const tree = atlas.methods[state.method].trees[state.tree];
  tree.clusterColumns ??= [];
  return (tree.clusterColumns[state.level] ??= clusterColumn(atlas, tree, state.level));
}

/** A level of a tree as a column of categories. */
function clusterColumn(atlas, tree, level) {
  const nodes = nodesOfLevel(tree, level);
  const counts = nodes.map((node) => tree.sizes[node]);
  return {
    name: tree.columns[level],
    nodes,
    counts,
    names: nodes.map((node) => tree.labels[node]),
    values: tree.nodeOfCell[level].map((node) => tree.indexInLevel[node] ?? MISSING_CODE),
    missing: atlas.cells - sum(counts),
  };
}

function categoryColor(atlas, category) {
  return atlas.palette[category % atlas.palette.length];
}

/** The color of a number on the scale of its column. */
function scaleColor(atlas, column, value) {
  const [low, high] = column.ends;
  const share = high > low ? (value - low) / (high - low) : 0.5;
  return atlas.scale[Math.max(0, Math.min(255, Math.round(share * 255)))];
}

/** RGBA of all cells, one number each; cells outside the mask are pale. */
function cellColors(atlas, column, mask) {
  const colors = new Uint32Array(atlas.drawn);
  // One entry per code, filled when it is met: 200,000 cells are one lookup each.
  const full = new Uint32Array(MISSING_CODE + 1);
  const pale = new Uint32Array(MISSING_CODE + 1);
  const paler = (color) => color.map((v) => Math.round(234 + 0.16 * (v - 234)));
  const rgba = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const colorOf = (code) => {
    if (code === MISSING_CODE) return atlas.missing;
    if (column.names) return categoryColor(atlas, code);
    return scaleColor(atlas, column, column.min + column.step * code);
  };
  for (let cell = 0; cell < atlas.drawn; cell++) {
    const code = column.values[cell];
    if (mask && !mask[cell]) colors[cell] = pale[code] ||= rgba(paler(colorOf(code)));
    else colors[cell] = full[code] ||= rgba(colorOf(code));
  }
  return colors;
}

/** Cells from the bottom to the top: without a value, outside the mask, inside. */
function drawOrder(atlas, column, mask) {
  const order = new Uint32Array(atlas.drawn);
  const layerOf = (cell) =>
    mask && mask[cell] ? 2 : column.values[cell] === MISSING_CODE ? 0 : mask ? 1 : 2;
  let next = 0;
  for (let layer = 0; layer < 3; layer++) {
    for (const cell of atlas.order) if (layerOf(cell) === layer) order[next++] = cell;
  }
  return order;
}

/** Mark the cells of a selection or a hovered legend entry: 1 inside, 0 outside. */
function maskOf(atlas, selection) {
  if (!selection) return null;
  if (selection.kind === 'category') {
    return atlas.columns[selection.column].values.map((code) => code === selection.category);
  }
  const tree = atlas.methods[selection.method].trees[selection.tree];
  return tree.nodeOfCell[tree.levels[selection.node]].map((node) => node === selection.node);
}
