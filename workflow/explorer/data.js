// What the page holds: read once, then plain arrays.

/** Unpack the data that the page carries: a JSON description, then arrays. */
async function readAtlas() {
  const text = atob(document.getElementById('data').textContent.trim());
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const start = 4 + new DataView(bytes.buffer).getUint32(0, true);
  const atlas = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)));
  const take = (place) => unpack(bytes.subarray(start + place.at), place.bytes, atlas.drawn);
  atlas.missing = rgb(atlas.missing);
  atlas.palette = atlas.palette.map(rgb);
  atlas.scale = atlas.scale.map(rgb);
  for (const column of atlas.columns) {
    column.values = take(column.data);
    if (!column.names) column.ends = [column.low, column.high];
  }
  for (const method of atlas.methods) {
    method.x = take(method.x);
    method.y = take(method.y);
    for (const tree of method.trees) readTree(tree, take(tree.data));
  }
  atlas.order = shuffled(atlas.drawn);
  return atlas;
}

/** Codes as numbers below 65536; 65535 is missing, whatever the array was packed in. */
function unpack(bytes, width, length) {
  const values = new Uint16Array(length);
  for (let i = 0; i < length; i++) {
    if (width === 2) values[i] = (bytes[i] << 8) | bytes[i + length];
    else values[i] = bytes[i] === 255 ? NONE : bytes[i];
  }
  return values;
}
const NONE = 65535;

/** Find the children of each node, and its place among the clusters of its level. */
function readTree(tree, deepest) {
  tree.title = tree.name.replace('_', ' ');
  tree.children = tree.labels.map(() => []);
  tree.roots = [];
  tree.place = [];
  tree.codes = [];
  const seen = tree.columns.map(() => 0);
  tree.labels.forEach((_, node) => {
    tree.place.push(seen[tree.levels[node]]++);
    const parent = tree.parents[node];
    (parent < 0 ? tree.roots : tree.children[parent]).push(node);
  });
  // The node of each cell, level by level: those above its deepest one follow from it.
  tree.deepest = deepest;
  tree.columns.forEach((_, level) => {
    const here = tree.labels.map((_, node) => {
      let up = node;
      while (tree.levels[up] > level) up = tree.parents[up];
      return tree.levels[up] === level ? up : NONE;
    });
    tree.codes[level] = deepest.map((node) => (node === NONE ? NONE : here[node]));
  });
}

/** Whether one node of a tree lies in another, or is it. */
function liesIn(tree, node, other) {
  for (let up = node; up >= 0; up = tree.parents[up]) if (up === other) return true;
  return false;
}

/** The nodes of one level, in their order. */
function nodesOf(tree, level) {
  return tree.labels.map((_, node) => node).filter((node) => tree.levels[node] === level);
}

/** Count the cells per node of a tree and category of a column: an array for each node. */
function mixOf(tree, column) {
  const counts = tree.labels.map(() => new Uint32Array(column.names.length));
  tree.deepest.forEach((node, cell) => {
    const category = column.values[cell];
    if (node !== NONE && category !== NONE) counts[node][category]++;
  });
  // Parents stand before their children.
  for (let node = tree.labels.length - 1; node >= 0; node--) {
    const parent = tree.parents[node];
    if (parent >= 0) counts[node].forEach((n, category) => (counts[parent][category] += n));
  }
  return counts;
}

/** Count the cells per category of a column, among all cells or those of a mask. */
function countsOf(column, mask) {
  const counts = new Uint32Array(column.names.length);
  column.values.forEach((category, cell) => {
    if (category !== NONE && (!mask || mask[cell])) counts[category]++;
  });
  return counts;
}

/** Evenness of a composition against that of all cells: 0 one category, 1 as all cells. */
function evenness(counts, all) {
  const entropy = (numbers) => {
    const total = numbers.reduce((a, b) => a + b, 0);
    return numbers.reduce((sum, n) => (n ? sum - (n / total) * Math.log(n / total) : sum), 0);
  };
  const most = entropy(all);
  return most > 0 ? Math.min(entropy(counts) / most, 1) : 1;
}

/** The same random order in every browser: no cell hides another because of its place. */
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
const comma = (number) => number.toLocaleString('en-US');
const percent = (share) =>
  `${share > 0 && share < 0.001 ? '<0.1' : (100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** A number as people write it, with `digits` significant ones. */
function short(number, digits = 4) {
  if (Number.isInteger(number)) return comma(number);
  const small = Math.abs(number) < 1e-3 || Math.abs(number) >= 1e6;
  return small ? number.toExponential(2) : String(Number(number.toPrecision(digits)));
}
