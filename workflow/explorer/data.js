// The data of the page: unpacked once into plain arrays; trees, counts and formats of numbers.

const MISSING_CODE = 65535; // of a missing value

/** Unpack the data that the page carries: a JSON description, then arrays. */
async function readAtlas() {
  const text = atob(document.getElementById('data').textContent.trim());
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const start = 4 + new DataView(bytes.buffer).getUint32(0, true);
  const atlas = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)));
  const read = (place) => unpack(bytes.subarray(start + place.at), place.bytes, atlas.drawn);
  atlas.missing = rgb(atlas.missing);
  atlas.palette = atlas.palette.map(rgb);
  atlas.scale = atlas.scale.map(rgb);
  for (const column of atlas.columns) {
    column.values = read(column.data);
    if (!column.names) column.ends = [column.low, column.high];
  }
  for (const method of atlas.methods) {
    method.x = read(method.x);
    method.y = read(method.y);
    for (const tree of method.trees) completeTree(tree, read(tree.data));
  }
  atlas.order = shuffled(atlas.drawn);
  return atlas;
}

/** Unpack an array of bytes, or of high bytes and then low ones. */
function unpack(bytes, width, length) {
  const values = new Uint16Array(length);
  for (let i = 0; i < length; i++) {
    if (width === 2) values[i] = (bytes[i] << 8) | bytes[i + length];
    else values[i] = bytes[i] === 255 ? MISSING_CODE : bytes[i];
  }
  return values;
}

/** Add to a tree the children of each node, its index within its level, and the nodes of cells. */
function completeTree(tree, deepest) {
  tree.title = tree.name.replace('_', ' ');
  tree.children = tree.labels.map(() => []);
  tree.roots = [];
  tree.indexInLevel = [];
  const counts = tree.columns.map(() => 0);
  tree.labels.forEach((_, node) => {
    tree.indexInLevel.push(counts[tree.levels[node]]++);
    const parent = tree.parents[node];
    (parent < 0 ? tree.roots : tree.children[parent]).push(node);
  });
  tree.deepest = deepest;
  // By level: the node of each cell, which follows from its deepest one.
  tree.nodeOfCell = tree.columns.map((_, level) => {
    const ancestors = tree.labels.map((_, node) => {
      let ancestor = node;
      while (tree.levels[ancestor] > level) ancestor = tree.parents[ancestor];
      return tree.levels[ancestor] === level ? ancestor : MISSING_CODE;
    });
    return deepest.map((node) => (node === MISSING_CODE ? MISSING_CODE : ancestors[node]));
  });
}

/** Whether a node lies below another, or is the same. */
function isWithin(tree, node, other) {
  for (let up = node; up >= 0; up = tree.parents[up]) if (up === other) return true;
  return false;
}

/** List the nodes of one level. */
function nodesOfLevel(tree, level) {
  return [...tree.labels.keys()].filter((node) => tree.levels[node] === level);
}

/** Count the cells per node of a tree and category of a column: an array for each node. */
function countsPerNode(tree, column) {
  const counts = tree.labels.map(() => new Uint32Array(column.names.length));
  tree.deepest.forEach((node, cell) => {
    const category = column.values[cell];
    if (node !== MISSING_CODE && category !== MISSING_CODE) counts[node][category]++;
  });
  // Parents are listed before their children.
  for (let node = tree.labels.length - 1; node >= 0; node--) {
    const parent = tree.parents[node];
    if (parent >= 0) counts[node].forEach((n, category) => (counts[parent][category] += n));
  }
  return counts;
}

/** Count the cells per category of a column, of all cells or of those in a mask. */
function countCategories(column, mask) {
  const counts = new Uint32Array(column.names.length);
  column.values.forEach((category, cell) => {
    if (category !== MISSING_CODE && (!mask || mask[cell])) counts[category]++;
  });
  return counts;
}

/** Entropy of a composition relative to that of all cells: from 0 (one category) to 1. */
function evenness(counts, overall) {
  const entropy = (numbers) => {
    const total = sum(numbers);
    return numbers.reduce((h, n) => (n ? h - (n / total) * Math.log(n / total) : h), 0);
  };
  const maximum = entropy(overall);
  return maximum > 0 ? Math.min(entropy(counts) / maximum, 1) : 1;
}

/** The same random order in every browser, so that no group of cells hides another. */
function shuffled(n) {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  let state = 12345;
  for (let i = n - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 4294967296) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function rgb(hex) {
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

const css = (color) => `rgb(${color.join(' ')})`;
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const comma = (number) => number.toLocaleString('en-US');
const percent = (share) =>
  `${share > 0 && share < 0.001 ? '<0.1' : (100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** Format a number for people, with `digits` significant digits. */
function formatNumber(number, digits = 4) {
  if (Number.isInteger(number)) return comma(number);
  const scientific = Math.abs(number) < 1e-3 || Math.abs(number) >= 1e6;
  return scientific ? number.toExponential(2) : String(Number(number.toPrecision(digits)));
}
