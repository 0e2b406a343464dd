// The panels beside the cells: legend, tree, and what lies behind a selection.

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
const named = (name) => (name.trim() === '' ? '(empty)' : name);

/** What the colors mean: categories to hover and click, or a scale. */
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
      make('span', { class: 'name' }, named(name)),
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
  const field = (k, text) =>
    make(
      'label',
      { class: 'field' },
      text,
      make('input', {
        type: 'number',
        step: 'any',
        value: String(Number(column.ends[k].toPrecision(5))),
        onchange: (event) => {
          const ends = [...column.ends];
          ends[k] = Number(event.target.value);
          onScale(ends);
        },
      }),
    );
  const colors = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((i) => css(atlas.scale[i]));
  const bar = { class: 'bar', style: { background: `linear-gradient(90deg, ${colors})` } };
  const missing = column.missing ? `${comma(column.missing)} cells without a value` : '';
  box.replaceChildren(
    make('div', { class: 'scale' }, histogram(atlas, column), make('div', bar)),
    make('div', { class: 'ends' }, make('span', {}, short(low)), make('span', {}, short(high))),
    make(
      'div',
      { class: 'fields' },
      field(0, 'from'),
      field(1, 'to'),
      make('button', { type: 'button', onclick: () => onScale([column.low, column.high]) }, 'Reset'),
    ),
    make('p', { class: 'note' }, missing),
  );
}

/** Cells along the color scale, as bars. */
function histogram(atlas, column) {
  const bins = new Uint32Array(40);
  const [low, high] = column.ends;
  for (const code of column.values) {
    const share = (column.min + column.step * code - low) / (high - low || 1);
    if (code !== NONE && share >= 0 && share <= 1) bins[Math.min(39, Math.floor(share * 40))]++;
  }
  const most = Math.max(...bins, 1);
  const bars = [...bins].map((n) => make('i', { style: { height: `${(100 * n) / most}%` } }));
  return make('div', { class: 'histogram', 'aria-hidden': 'true' }, ...bars);
}

/** Shares of categories as one bar. */
function mixBar(atlas, counts, width) {
  const total = counts.reduce((a, b) => a + b, 0);
  const bar = make('span', { class: 'mix', style: { width } });
  counts.forEach((n, category) => {
    if (n === 0) return;
    const background = css(categoryColor(atlas, category));
    bar.append(make('i', { style: { background, width: `${(100 * n) / total}%` } }));
  });
  return bar;
}

/** The cluster tree: a row per node with its size and its mix of batches. */
function drawTree(list, atlas, tree, { open, selected, focus, mix, overall, onSelect, onToggle }) {
  const most = Math.max(...tree.sizes, 1);
  const rows = [];
  const row = (node, depth, siblings, place) => {
    const children = node < 0 ? tree.roots : tree.children[node];
    const expanded = node < 0 || open.has(node);
    const size = node < 0 ? atlas.cells : tree.sizes[node];
    const label = node < 0 ? 'All cells' : tree.labels[node];
    const width = node < 0 ? '100%' : `${Math.max((100 * size) / most, 1.5)}%`;
    const color = node < 0 ? null : swatch(categoryColor(atlas, tree.place[node]));
    const twist = children.length && node >= 0;
    const toggle = (event) => (event.stopPropagation(), onToggle(node));
    const click = twist ? { onclick: toggle } : {};
    rows.push(
      make(
        'li',
        {
          role: 'treeitem',
          'aria-level': depth + 1,
          'aria-setsize': siblings,
          'aria-posinset': place + 1,
          'aria-selected': String(node === selected),
          'aria-expanded': children.length ? String(expanded) : null,
          'aria-label': `${node < 0 ? '' : 'cluster '}${label}, ${comma(size)} cells`,
          'data-node': node,
          tabindex: node === focus ? 0 : -1,
          style: { paddingLeft: `${6 + 15 * Math.max(depth - 1, 0)}px` },
          onclick: () => onSelect(node),
        },
        make('span', { class: twist ? 'twist' : 'twist none', ...click }, expanded ? '▾' : '▸'),
        color,
        make('span', { class: 'name' }, label),
        make('span', { class: 'bars' }, mixBar(atlas, node < 0 ? overall : mix[node], width)),
        make('span', { class: 'number' }, comma(size)),
      ),
    );
    if (!expanded) return;
    children.forEach((child, i) => row(child, depth + 1, children.length, i));
  };
  row(-1, 0, 1, 0);
  list.replaceChildren(...rows);
}

/** What is selected: its cells, their composition, robustness and markers. */
function drawDetails(box, atlas, about) {
  const tiles = about.tiles.map(([value, name, hint]) =>
    make('div', { title: hint }, make('b', {}, value), make('span', {}, name)));
  const clear = { type: 'button', class: 'quiet', onclick: about.onClear };
  const summary = make('section', {},
    make('div', { class: 'head' }, about.color ? swatch(about.color) : null,
      make('h2', {}, about.title), about.onClear ? make('button', clear, 'Clear') : null),
    make('p', { class: 'note' }, about.subtitle),
    make('div', { class: 'tiles' }, ...tiles),
    robustness(about.splits));
  const mixes = about.mixes.map((mix) => composition(atlas, mix));
  const parts = [summary, make('section', { class: 'mixes' }, ...mixes), markerTable(about.markers)];
  box.replaceChildren(...parts.filter(Boolean));
}

/** Bars of the largest categories among some cells, with the share among all as a tick. */
function composition(atlas, { column, place, counts, overall, onColumn, sampled }) {
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const [total, all] = [sum(counts) || 1, sum(overall) || 1];
  const options = atlas.columns
    .filter((item) => item.names)
    .map((item) => make('option', { value: atlas.columns.indexOf(item) }, item.name));
  const select = make('select', { 'aria-label': 'Composition by', id: `mix-${place}` }, ...options);
  select.value = String(atlas.columns.indexOf(column));
  select.addEventListener('change', () => onColumn(Number(select.value)));
  const order = [...counts.keys()].filter((i) => counts[i]).sort((a, b) => counts[b] - counts[a]);
  const rows = order.slice(0, 12).map((category) => {
    const [share, expected] = [counts[category] / total, overall[category] / all];
    const title = `${column.names[category]}: ${percent(share)} here, ${percent(expected)} of all`;
    const background = css(categoryColor(atlas, category));
    return make('li', { title },
      make('span', { class: 'name' }, named(column.names[category])),
      make('span', { class: 'track' },
        make('i', { style: { width: `${100 * share}%`, background } }),
        make('b', { style: { left: `${100 * expected}%` } })),
      make('span', { class: 'number' }, percent(share)));
  });
  const rest = order.length > 12 ? `${order.length - 12} more. ` : '';
  const tick = place ? '' : 'The tick is the share among all cells. ';
  const from = sampled && !place ? 'Estimated from the cells drawn.' : '';
  return make('div', {},
    make('h3', {}, 'Composition by ', select),
    make('ul', { class: 'composition' }, ...rows),
    make('p', { class: 'note' }, rest + tick + from));
}

const readable = (name) => name.replaceAll('_', ' ');
const written = (value) => (typeof value === 'number' ? short(value, 3) : value ?? '–');

/** How well a cluster stands, as a list of what the table says. */
function robustness(table) {
  if (!table) return null;
  const rows = table.fields.flatMap((field, i) => {
    const value = table.rows[0][i];
    if (value === null) return [];
    return [make('dt', {}, readable(field)), make('dd', {}, written(value))];
  });
  return make('div', { class: 'robustness' }, make('h3', {}, 'Robustness'), make('dl', {}, ...rows));
}

// Heading and meaning of what is known of a marker gene.
const MARKER = {
  gene: ['gene', 'Name of the gene'],
  log2fc: ['log₂ FC', 'Fold change against the cells it is compared with'],
  auc: ['AUC', 'Chance that a cell of the cluster has more of it than another cell'],
  p_adj: ['adj. p', 'p value, adjusted for the number of genes'],
  fraction_in: ['in', 'Share of the cells of the cluster that have it'],
  fraction_out: ['out', 'Share of the other cells that have it'],
};

function markerTable(table) {
  if (!table) return null;
  const head = table.fields.map((field) => {
    const [text, title] = MARKER[field];
    return make('th', { scope: 'col', title }, text);
  });
  const text = (value, field) => {
    if (value !== null && field.startsWith('fraction')) return percent(value);
    return field === 'p_adj' && value === 0 ? '< 1e-300' : written(value);
  };
  const cell = (value, i) =>
    make(i ? 'td' : 'th', i ? {} : { scope: 'row' }, text(value, table.fields[i]));
  const rows = table.rows.map((row) => make('tr', {}, ...row.map(cell)));
  return make('section', {},
    make('h3', {}, 'Marker genes'),
    make('table', {}, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...rows)));
}
