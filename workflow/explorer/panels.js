// The panels beside the cells as elements: legend, cluster tree and details.

const $ = (id) => document.getElementById(id);

/** Make an element; strings become text, never markup, so names may hold anything. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'style') Object.assign(element.style, value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const swatch = (color) => make('i', { class: 'swatch', style: { background: css(color) } });
const displayName = (name) => (name.trim() === '' ? '(empty)' : name);

/** Show what the colors mean: categories to hover and click, or a scale. */
function drawLegend(box, atlas, column, { chosen, onHover, onChoose, onScale }) {
  if (!column.names) {
    drawScale(box, atlas, column, onScale);
    return;
  }
  const list = make('ul', { class: 'legend', 'aria-label': `Categories of ${column.name}` });
  column.names.forEach((name, category) => {
    const pressed = chosen === category;
    const button = make(
      'button',
      {
        type: 'button',
        'aria-pressed': String(pressed),
        title: name,
        onmouseenter: () => onHover(category),
        onfocus: () => onHover(category),
        onmouseleave: () => onHover(-1),
        onblur: () => onHover(-1),
        onclick: () => onChoose(pressed ? -1 : category),
      },
      swatch(categoryColor(atlas, category)),
      make('span', { class: 'name' }, displayName(name)),
      make('span', { class: 'number' }, comma(column.counts[category])),
    );
    list.append(make('li', {}, button));
  });
  if (column.missing) {
    const row = [make('span', { class: 'name' }, 'no value'), comma(column.missing)];
    list.append(make('li', { class: 'missing' }, swatch(atlas.missing), ...row));
  }
  box.replaceChildren(list);
}

function drawScale(box, atlas, column, onScale) {
  const [low, high] = column.ends;
  const field = (k, text) => {
    const onchange = (event) => onScale(column.ends.with(k, Number(event.target.value)));
    const value = String(Number(column.ends[k].toPrecision(5)));
    return make('label', { class: 'field' }, text,
      make('input', { type: 'number', step: 'any', value, onchange }));
  };
  const reset = () => onScale([column.low, column.high]);
  const colors = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((i) => css(atlas.scale[i]));
  const gradient = { class: 'gradient', style: { background: `linear-gradient(90deg, ${colors})` } };
  const missing = column.missing ? `${comma(column.missing)} cells without a value` : '';
  box.replaceChildren(
    make('div', { class: 'scale' }, histogram(atlas, column), make('div', gradient)),
    make('div', { class: 'ends' },
      make('span', {}, formatNumber(low)), make('span', {}, formatNumber(high))),
    make('div', { class: 'fields' }, field(0, 'from'), field(1, 'to'),
      make('button', { type: 'button', onclick: reset }, 'Reset')),
    make('p', { class: 'note' }, missing),
  );
}

/** Numbers of cells along the color scale, as bars. */
function histogram(atlas, column) {
  const counts = new Uint32Array(40);
  const [low, high] = column.ends;
  for (const code of column.values) {
    const share = (column.min + column.step * code - low) / (high - low || 1);
    if (code !== MISSING_CODE && share >= 0 && share <= 1) counts[Math.min(39, Math.floor(share * 40))]++;
  }
  const tallest = Math.max(...counts, 1);
  const bars = [...counts].map((n) => make('i', { style: { height: `${(100 * n) / tallest}%` } }));
  return make('div', { class: 'histogram', 'aria-hidden': 'true' }, ...bars);
}

/** Shares of categories as one bar. */
function mixBar(atlas, counts, width) {
  const total = sum(counts);
  const bar = make('span', { class: 'mix', style: { width } });
  counts.forEach((n, category) => {
    if (n === 0) return;
    const background = css(categoryColor(atlas, category));
    bar.append(make('i', { style: { background, width: `${(100 * n) / total}%` } }));
  });
  return bar;
}

/** The cluster tree: one row per node with its size and its composition. */
function drawTree(list, atlas, tree, { open, selected, focus, counts, overall, verdictOf, onSelect, onToggle }) {
  const largest = Math.max(...tree.sizes, 1);
  const rows = [];
  const addRow = (node, depth, siblings, index) => {
    const isRoot = node < 0; // all cells
    const children = isRoot ? tree.roots : tree.children[node];
    const expanded = isRoot || open.has(node);
    const size = isRoot ? atlas.cells : tree.sizes[node];
    const label = isRoot ? 'All cells' : tree.labels[node];
    const width = isRoot ? '100%' : `${Math.max((100 * size) / largest, 1.5)}%`;
    const color = isRoot ? null : swatch(categoryColor(atlas, tree.indexInLevel[node]));
    const verdict = isRoot ? null : verdictOf(node);
    const name = { class: `name ${verdict ?? ''}`, title: verdict && `Split from its siblings: ${verdict}` };
    const foldable = !isRoot && children.length > 0;
    const toggle = (event) => (event.stopPropagation(), onToggle(node));
    const arrow = { class: foldable ? 'arrow' : 'arrow none', onclick: foldable ? toggle : null };
    rows.push(
      make(
        'li',
        {
          role: 'treeitem',
          'aria-level': depth + 1,
          'aria-setsize': siblings,
          'aria-posinset': index + 1,
          'aria-selected': String(node === selected),
          'aria-expanded': children.length ? String(expanded) : null,
          'aria-label': `${isRoot ? '' : 'cluster '}${label}, ${comma(size)} cells`,
          'data-node': node,
          tabindex: node === focus ? 0 : -1,
          style: { paddingLeft: `${6 + 15 * Math.max(depth - 1, 0)}px` },
          onclick: () => onSelect(node),
        },
        make('span', arrow, expanded ? '▾' : '▸'),
        color,
        make('span', name, label),
        make('span', { class: 'bars' }, mixBar(atlas, isRoot ? overall : counts[node], width)),
        make('span', { class: 'number' }, comma(size)),
      ),
    );
    if (expanded) children.forEach((child, i) => addRow(child, depth + 1, children.length, i));
  };
  addRow(-1, 0, 1, 0);
  list.replaceChildren(...rows);
}

/** What is selected: its cells, their composition, split and markers. */
function drawDetails(box, atlas, { title, subtitle, color, tiles, splits, markers, compositions, onClear }) {
  const clear = { type: 'button', class: 'quiet', onclick: onClear };
  const summary = make('section', {},
    make('div', { class: 'head' }, color ? swatch(color) : null,
      make('h2', {}, title), onClear ? make('button', clear, 'Clear') : null),
    make('p', { class: 'note' }, subtitle),
    make('div', { class: 'tiles' }, ...tiles.map(([value, name, hint]) =>
      make('div', { title: hint }, make('b', {}, value), make('span', {}, name)))),
    splits ? splitList(splits) : null);
  const bars = compositions.map((composition) => compositionBars(atlas, composition));
  const sections = [summary, make('section', { class: 'compositions' }, ...bars)];
  if (markers) sections.push(markerTable(markers));
  box.replaceChildren(...sections);
}

/** Bars of the largest categories among some cells, with the share among all cells as a tick. */
function compositionBars(atlas, { column, index, counts, overall, sampled, onColumn }) {
  const [total, totalOverall] = [sum(counts) || 1, sum(overall) || 1];
  const options = atlas.columns.flatMap((item, c) =>
    item.names ? [make('option', { value: c }, item.name)] : []);
  const select = make('select', { 'aria-label': 'Composition by', id: `composition-${index}` }, ...options);
  select.value = String(atlas.columns.indexOf(column));
  select.addEventListener('change', () => onColumn(Number(select.value)));
  const order = [...counts.keys()].filter((i) => counts[i]).sort((a, b) => counts[b] - counts[a]);
  const rows = order.slice(0, 12).map((category) => {
    const [share, expected] = [counts[category] / total, overall[category] / totalOverall];
    const title = `${column.names[category]}: ${percent(share)} here, ${percent(expected)} of all cells`;
    const background = css(categoryColor(atlas, category));
    return make('li', { title },
      make('span', { class: 'name' }, displayName(column.names[category])),
      make('span', { class: 'track' },
        make('i', { style: { width: `${100 * share}%`, background } }),
        make('b', { style: { left: `${100 * expected}%` } })),
      make('span', { class: 'number' }, percent(share)));
  });
  const more = order.length > 12 ? `${order.length - 12} more. ` : '';
  const tick = index ? '' : 'The tick is the share among all cells. ';
  const estimate = sampled && !index ? 'Estimated from the cells drawn.' : '';
  return make('div', {},
    make('h3', {}, 'Composition by ', select),
    make('ul', { class: 'composition' }, ...rows),
    make('p', { class: 'note' }, more + tick + estimate));
}

/** What speaks against the methods and clusters: rows of warnings.tsv. */
function drawWarnings(box, warnings) {
  box.hidden = warnings.length === 0;
  const items = warnings.map(({ method, where, figure, advice }) =>
    make('li', { title: advice }, make('b', {}, method), ` ${where}: ${figure}. `, make('i', {}, advice)));
  box.replaceChildren(make('h3', {}, `Warnings (${comma(warnings.length)})`), make('ul', {}, ...items));
}

const formatValue = (value) => (typeof value === 'number' ? formatNumber(value, 3) : value ?? '–');

/** The split that separates a cluster from its siblings: the fields of its row of splits.tsv. */
function splitList({ fields, rows }) {
  const items = fields.flatMap((field, i) => {
    const value = rows[0][i];
    if (value === null) return [];
    return [make('dt', {}, field.replaceAll('_', ' ')), make('dd', {}, formatValue(value))];
  });
  return make('div', { class: 'robustness' }, make('h3', {}, 'Split from its siblings'), make('dl', {}, ...items));
}

// Heading and meaning of the fields of a marker gene.
const MARKER_FIELDS = {
  gene: ['gene', 'Name of the gene'],
  log2fc: ['log₂ FC', 'Fold change against the cells that the cluster is compared with'],
  auc: ['AUC', 'Probability that a cell of the cluster has more of it than another cell'],
  p_adj: ['adj. p', 'p value, adjusted for the number of genes'],
  fraction_in: ['in', 'Share of the cells of the cluster that express it'],
  fraction_out: ['out', 'Share of the other cells that express it'],
};

function markerTable({ fields, rows }) {
  const head = fields.map((field) => {
    const [heading, title] = MARKER_FIELDS[field];
    return make('th', { scope: 'col', title }, heading);
  });
  const format = (value, field) => {
    if (value !== null && field.startsWith('fraction')) return percent(value);
    return field === 'p_adj' && value === 0 ? '< 1e-300' : formatValue(value);
  };
  const cell = (value, i) =>
    make(i ? 'td' : 'th', i ? {} : { scope: 'row' }, format(value, fields[i]));
  const body = rows.map((row) => make('tr', {}, ...row.map(cell)));
  return make('section', {},
    make('h3', {}, 'Marker genes'),
    make('table', {}, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...body)));
}
