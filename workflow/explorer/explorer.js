// State, and what every control does to it. One way: a control changes the state, `update` shows it.

const $ = (id) => document.getElementById(id);

/** What is shown at first: the last method's clusters, beside the first method. */
function firstState(atlas) {
  const method = atlas.methods.length - 1;
  const named = (name) => atlas.columns.findIndex((column) => column.name === name);
  const categories = [...atlas.columns.keys()].filter((c) => atlas.columns[c].names?.length > 1);
  const mixes = [...new Set([...atlas.batch.map(named).slice(0, 1), ...categories])];
  return {
    shown: [...new Set([0, method])],
    side: method > 0 && window.innerWidth >= 1200,
    method,
    tree: 0,
    level: 0,
    color: atlas.methods[method].trees.length ? 'clusters' : firstColumn(atlas),
    selection: null,
    hover: null,
    mixes: mixes.slice(0, 2), // columns of which the composition is shown, the first in the tree
    open: new Set(),
    focus: -1,
  };
}

/** What to color by where there are no clusters: a column, or nothing. */
const firstColumn = (atlas) => (atlas.columns.length ? 0 : -1);

async function start() {
  const atlas = await readAtlas();
  const state = firstState(atlas);
  let plots = [];
  let mask = null;
  const method = () => atlas.methods[state.method];
  const tree = () => method().trees[state.tree];
  const hasTree = () => Boolean(tree());

  // ------------------------------------------------------------ actions

  /** Change the state, and show what follows. */
  function update(changes, { quiet = false } = {}) {
    Object.assign(state, changes);
    if ('shown' in changes || 'side' in changes) layPlots();
    if ('selection' in changes || 'method' in changes || 'tree' in changes) {
      mask = maskOf(atlas, state.selection);
      if (!quiet) announce();
    }
    showControls();
    showCells();
    showLegend();
    showTree();
    showDetails();
  }

  function selectNode(node, m = state.method, t = state.tree) {
    if (node < 0) return update({ selection: null, focus: -1 });
    const { levels, parents } = atlas.methods[m].trees[t];
    const open = m === state.method && t === state.tree ? state.open : new Set();
    for (let up = parents[node]; up >= 0; up = parents[up]) open.add(up);
    const level = Math.max(levels[node], state.level);
    const selection = { kind: 'node', method: m, tree: t, node };
    const deepest = atlas.methods[m].trees[t].columns.length - 1;
    return update({ selection, method: m, tree: t, level: Math.min(level, deepest), open, focus: node });
  }

  /** Show a level of a tree; the tree is opened down to it, the selection of another let go. */
  function showClusters(m, t, level) {
    const target = atlas.methods[m].trees[t];
    if (!target) return update({ method: m, tree: 0, color: firstColumn(atlas), selection: null });
    const open = new Set([...target.labels.keys()].filter((node) => target.levels[node] < level));
    const same = m === state.method && t === state.tree;
    const selection = same || state.selection?.kind === 'category' ? state.selection : null;
    return update({ method: m, tree: t, level, open, selection, color: 'clusters',
      focus: same ? state.focus : -1 });
  }

  function selectCategory(column, category) {
    const selection = category < 0 ? null : { kind: 'category', column, category };
    update({ selection, color: column });
  }

  /** Another method's clusters: of the same resolution and level, as near as they come. */
  function changeMethod(m) {
    const { trees } = atlas.methods[m];
    const t = Math.max(0, trees.findIndex((item) => item.name === tree()?.name));
    const level = Math.min(state.level, (trees[t]?.columns.length ?? 1) - 1);
    const { color } = state;
    layPlots(m);
    showClusters(m, t, level);
    if (color !== 'clusters') update({ color });
  }

  function changeTree(t) {
    const next = method().trees[t];
    if (next) showClusters(state.method, t, Math.min(state.level, next.columns.length - 1));
  }

  function announce() {
    const chosen = mask ? mask.reduce((a, b) => a + b, 0) : atlas.drawn;
    const { selection } = state;
    const name = selection && titleOf(selection);
    $('said').textContent = selection ? `${name}: ${comma(chosen)} cells selected` : 'All cells';
  }

  function titleOf(selection) {
    if (selection.kind === 'category') return named(atlas.columns[selection.column].names[selection.category]);
    return `Cluster ${atlas.methods[selection.method].trees[selection.tree].labels[selection.node]}`;
  }

  // ------------------------------------------------------------ cells

  /** Lay out one plot, or two side by side; a method that is not shown takes the last place. */
  function layPlots(wanted = state.method) {
    if (!state.shown.includes(wanted)) state.shown = [state.shown[0], wanted];
    const shown = state.side ? state.shown : [wanted];
    if (plots.map((plot) => plot.place).join() === shown.join()) return;
    plots.forEach((plot) => plot.remove());
    $('plots').replaceChildren();
    plots = shown.map((m, place) => {
      const select = make('select', { 'aria-label': 'Method of this plot' },
        ...atlas.methods.map((item, i) => make('option', { value: i }, item.name)));
      select.value = String(m);
      select.addEventListener('change', () => {
        if (!state.side) return changeMethod(Number(select.value));
        const next = [...state.shown];
        next[place] = Number(select.value);
        state.shown = next;
        return next.includes(state.method) ? update({ shown: next }) : changeMethod(next[place]);
      });
      const item = atlas.methods[m];
      const box = make('div', { class: 'plot', tabindex: 0, role: 'application',
        'aria-label': `Cells of ${item.name}; arrow keys pan, plus and minus zoom, 0 shows all` });
      const zoom = (text, label, act) =>
        make('button', { type: 'button', 'aria-label': label, title: label, onclick: act }, text);
      const plot = makePlot(box, item, {
        onHover: (cell, event) => showTip(item, cell, event),
        onPick: pick,
      });
      plot.place = m;
      $('plots').append(make('article', { class: 'card' },
        make('div', { class: 'plot-head' }, atlas.methods.length > 1 ? select : make('h2', {}, item.name),
          make('span', { class: 'what' }),
          make('span', { class: 'zoom' }, zoom('+', 'Zoom in', () => plot.zoomBy(1.4)),
            zoom('−', 'Zoom out', () => plot.zoomBy(1 / 1.4)), zoom('⤢', 'Show all', plot.reset))),
        box));
      return plot;
    });
    document.documentElement.dataset.renderer = plots[0].renderer;
  }

  /** A click on a cell: its cluster, or its category where the colors show one. */
  function pick(cell) {
    if (cell < 0) return update({ selection: null });
    if (state.color >= 0 && atlas.columns[state.color].names) {
      const category = atlas.columns[state.color].values[cell];
      if (category !== NONE) return selectCategory(state.color, category);
    }
    const node = hasTree() ? tree().codes[state.level][cell] : NONE;
    return node === NONE ? update({ selection: null }) : selectNode(node);
  }

  function showCells() {
    const column = coloring(atlas, state);
    const seen = state.hover ? maskOf(atlas, state.hover) : mask;
    const colors = cellColors(atlas, column, seen);
    const order = drawOrder(atlas, column, seen);
    for (const plot of plots) {
      plot.show(colors, order, labelsOf(plot.method, column));
      const what = $('plots').children[plots.indexOf(plot)].querySelector('.what');
      what.textContent = column.clusters ? `${column.name} of ${method().name}` : column.name;
    }
  }

  function labelsOf(item, column) {
    if (!column.clusters) return [];
    const nodes = tree();
    const { hover, selection } = state;
    const chosen = hover ?? selection;
    // Of a selected cluster, the clusters within it keep their names in full ink.
    const within = (node) => {
      if (chosen?.kind !== 'node') return !chosen;
      if (atlas.methods[chosen.method].trees[chosen.tree] !== nodes) return false;
      return liesIn(nodes, node, chosen.node) || liesIn(nodes, chosen.node, node);
    };
    return labelPlaces(item, column).map(({ category, x, y }) => {
      const node = column.nodes[category];
      return { text: nodes.labels[node], x, y, strong: within(node) };
    });
  }

  function showTip(item, cell, event) {
    const tip = $('tip');
    tip.hidden = cell < 0 || state.color === -1;
    if (tip.hidden) return;
    const column = coloring(atlas, state);
    const code = column.values[cell];
    const value = column.names ? column.names[code] : short(column.min + column.step * code);
    const lines = [make('b', {}, code === NONE ? 'no value' : named(value)), ` ${column.name}`];
    const other = atlas.columns[state.mixes[0]];
    if (other && other !== column && other.values[cell] !== NONE) {
      lines.push(make('br'), make('b', {}, named(other.names[other.values[cell]])), ` ${other.name}`);
    }
    tip.replaceChildren(...lines);
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    Object.assign(tip.style, { left: `${left}px`, top: `${event.clientY + 14}px` });
  }

  // ------------------------------------------------------------ panels

  function showControls() {
    const options = (texts) => texts.map((text, i) => make('option', { value: i }, text));
    $('method').replaceChildren(...options(atlas.methods.map((item) => item.name)));
    $('method').value = String(state.method);
    $('tree').replaceChildren(...options(method().trees.map((item) => item.title)));
    $('tree').value = String(state.tree);
    const levels = hasTree() ? tree().level_names : [];
    const buttons = levels.map((name, level) => make('button', {
      type: 'button', role: 'radio', 'aria-checked': String(level === state.level),
      tabindex: level === state.level ? 0 : -1,
      onclick: () => showClusters(state.method, state.tree, level),
    }, name));
    const focused = $('level').contains(document.activeElement);
    $('level').replaceChildren(...buttons);
    if (focused) buttons[state.level].focus();
    showColorOptions();
    $('compare').hidden = atlas.methods.length < 2;
    $('compare').setAttribute('aria-pressed', String(state.side));
    $('plots').classList.toggle('two', state.side);
  }

  function showColorOptions() {
    const group = (label, items) => items.length ? make('optgroup', { label }, ...items) : null;
    const clusters = method().trees.flatMap((item, t) => item.columns.map((name, level) =>
      make('option', { value: `t${t}.${level}` }, name)));
    const own = (wanted) => atlas.columns.flatMap((column, c) =>
      Boolean(column.names) === wanted ? [make('option', { value: c }, column.name)] : []);
    const groups = [group(`Clusters of ${method().name}`, clusters),
      group('Categories', own(true)), group('Numbers', own(false))];
    $('color').replaceChildren(...groups.filter(Boolean));
    const { color, tree: t, level } = state;
    $('color').value = color === 'clusters' ? `t${t}.${level}` : String(color);
  }

  function showLegend() {
    const column = coloring(atlas, state);
    const clusters = state.color === 'clusters';
    const { selection } = state;
    const chosen = !selection ? -1
      : clusters && selection.kind === 'node' && tree().levels[selection.node] === state.level
        ? tree().place[selection.node]
        : selection.kind === 'category' && selection.column === state.color ? selection.category : -1;
    const target = (category) => clusters
      ? { kind: 'node', method: state.method, tree: state.tree, node: column.nodes[category] }
      : { kind: 'category', column: state.color, category };
    const scroll = $('legend').scrollTop;
    const focus = [...$('legend').querySelectorAll('button')].indexOf(document.activeElement);
    drawLegend($('legend'), atlas, column, {
      chosen,
      onHover: (category) => {
        const hover = category < 0 ? null : target(category);
        if (JSON.stringify(hover) === JSON.stringify(state.hover)) return;
        state.hover = hover;
        showCells();
      },
      onChoose: (category) => {
        if (!clusters) return selectCategory(state.color, category);
        return selectNode(category < 0 ? -1 : column.nodes[category]);
      },
      onScale: (ends) => {
        if (ends.every(Number.isFinite)) column.ends = ends;
        update({});
      },
    });
    $('legend').scrollTop = scroll;
    if (focus >= 0) $('legend').querySelectorAll('button')[focus]?.focus();
  }

  const mixColumn = () => atlas.columns[state.mixes[0]];
  let mixes = {};

  /** Counts per node and category, kept until tree or column change. */
  function currentMix() {
    const key = [state.method, state.tree, state.mixes[0]].join();
    if (mixes.key !== key) {
      const column = mixColumn();
      mixes = { key, counts: column ? mixOf(tree(), column) : tree().labels.map(() => []),
        overall: column ? countsOf(column, null) : [] };
    }
    return mixes;
  }

  function showTree() {
    const list = $('nodes');
    list.hidden = !hasTree();
    if (!hasTree()) return;
    const { selection } = state;
    const own = selection?.kind === 'node' && selection.tree === state.tree && selection.method === state.method;
    const { counts, overall } = currentMix();
    const scroll = list.scrollTop;
    const focused = list.contains(document.activeElement);
    drawTree(list, atlas, tree(), {
      open: state.open,
      selected: own ? selection.node : selection ? -2 : -1,
      focus: state.focus,
      mix: counts,
      overall,
      onSelect: (node) => selectNode(node),
      onToggle: toggle,
    });
    list.scrollTop = scroll;
    const row = list.querySelector('[tabindex="0"]') ?? list.firstElementChild;
    row.tabIndex = 0;
    if (own || focused) row.scrollIntoView({ block: 'nearest' });
    if (focused) row.focus({ preventScroll: true });
  }

  function toggle(node, wanted = !state.open.has(node)) {
    if (wanted) state.open.add(node);
    else state.open.delete(node);
    update({ focus: node });
  }

  function treeKey(event) {
    const rows = [...$('nodes').children];
    const at = rows.indexOf(document.activeElement);
    if (at < 0 || event.ctrlKey || event.metaKey) return;
    const node = Number(rows[at].dataset.node);
    const go = (place) => update({ focus: Number(rows[Math.max(0, Math.min(place, rows.length - 1))].dataset.node) });
    const closed = node >= 0 && tree().children[node].length && !state.open.has(node);
    const opened = node >= 0 && tree().children[node].length && state.open.has(node);
    const acts = {
      ArrowDown: () => go(at + 1),
      ArrowUp: () => go(at - 1),
      Home: () => go(0),
      End: () => go(rows.length - 1),
      ArrowRight: () => (closed ? toggle(node, true) : opened || node < 0 ? go(at + 1) : null),
      ArrowLeft: () => (opened ? toggle(node, false) : node >= 0 ? update({ focus: tree().parents[node] }) : null),
      Enter: () => selectNode(node),
      ' ': () => selectNode(node),
    };
    if (!acts[event.key]) return;
    acts[event.key]();
    event.preventDefault();
    event.stopPropagation();
  }

  function showDetails() {
    const { selection } = state;
    const about = { title: 'All cells', tiles: [],
      subtitle: 'Click a cluster, a cell or a category to see what lies behind it.' };
    let size = atlas.cells;
    if (selection) {
      Object.assign(about, { title: titleOf(selection), onClear: () => update({ selection: null }) });
      if (selection.kind === 'node') size = describeNode(about, selection);
      else {
        const from = atlas.columns[selection.column];
        size = from.counts[selection.category];
        about.subtitle = from.name;
        about.color = categoryColor(atlas, selection.category);
      }
    }
    about.tiles.unshift([comma(size), 'cells', 'Number of cells'], [percent(size / atlas.cells), 'of all', 'Share of all cells']);
    about.mixes = state.mixes.map((c, place) => {
      const column = atlas.columns[c];
      const overall = countsOf(column, null);
      const onColumn = (next) => update({ mixes: state.mixes.with(place, next) });
      return { column, place, overall, counts: mask ? countsOf(column, mask) : overall, onColumn,
        sampled: atlas.drawn < atlas.cells };
    });
    if (about.mixes.length) {
      const { column, counts, overall } = about.mixes[0];
      const hint = `Entropy of ${column.name}, by that of all cells: 0 is one category alone`;
      about.tiles.push([evenness(counts, overall).toFixed(2), 'mixing', hint]);
    }
    drawDetails($('details'), atlas, about);
  }

  function describeNode(about, selection) {
    const from = atlas.methods[selection.method];
    const nodes = from.trees[selection.tree];
    const { node } = selection;
    const column = nodes.columns[nodes.levels[node]];
    const find = (table) => {
      const rows = table?.rows[column]?.[nodes.labels[node]];
      return rows ? { fields: table.fields, rows } : null;
    };
    Object.assign(about, { color: categoryColor(atlas, nodes.place[node]),
      subtitle: `${column} of ${from.name}`, markers: find(from.markers), splits: find(from.splits) });
    const parts = nodes.children[node].length;
    if (parts) about.tiles.push([parts, parts > 1 ? 'parts' : 'part', 'Clusters of the next level']);
    return nodes.sizes[node];
  }

  // ------------------------------------------------------------ export

  /** Draw the plots and the legend on one canvas, at twice the screen's pixels. */
  function picture() {
    const ratio = 2 * (window.devicePixelRatio || 1);
    const area = $('plots').getBoundingClientRect();
    const column = coloring(atlas, state);
    const rows = column.names ? column.names.length : 0;
    const lines = Math.max(1, Math.floor((area.height - 60) / 18));
    const columns = Math.min(Math.ceil(rows / lines), 3);
    const wide = area.width + (column.names ? 190 * columns : 190);
    const canvas = make('canvas', { width: wide * ratio, height: area.height * ratio });
    const context = canvas.getContext('2d');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, canvas.width, canvas.height);
    plots.forEach((plot, i) => {
      const box = $('plots').children[i].querySelector('.plot').getBoundingClientRect();
      plot.copyTo(context, (box.left - area.left) * ratio, (box.top - area.top) * ratio, ratio);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.fillStyle = '#1d2733';
      context.font = '600 14px system-ui, sans-serif';
      context.fillText(`${atlas.title} · ${plot.method.name}`, box.left - area.left + 8, 22);
      context.setTransform(1, 0, 0, 1, 0, 0);
    });
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.translate(area.width + 10, 30);
    paintLegend(context, atlas, column, { lines, columns });
    return canvas;
  }

  function save() {
    const column = coloring(atlas, state);
    picture().toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      const file = `${atlas.title}_${column.name}.png`.replace(/[^\w.-]+/g, '_');
      make('a', { href: url, download: file }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
      $('said').textContent = `Saved ${file}`;
    });
  }

  // ------------------------------------------------------------ start

  $('title').textContent = atlas.title;
  const some = atlas.drawn < atlas.cells ? ` · ${comma(atlas.drawn)} of them drawn, some of every cluster` : '';
  $('cells').textContent = `${comma(atlas.cells)} cells${some}`;
  $('notes').textContent = atlas.leftOut.length
    ? `Left out: ${atlas.leftOut.map((item) => `${item.name} (${item.why})`).join(', ')}` : '';
  const compare = () => atlas.methods.length > 1 && update({ side: !state.side });
  $('compare').addEventListener('click', compare);
  $('export').addEventListener('click', save);
  $('help').addEventListener('click', () => $('keys').showModal());
  $('method').addEventListener('change', () => changeMethod(Number($('method').value)));
  $('tree').addEventListener('change', () => changeTree(Number($('tree').value)));
  $('nodes').addEventListener('keydown', treeKey);
  $('color').addEventListener('change', () => {
    const chosen = $('color').value.match(/^t(\d+)\.(\d+)$/);
    if (chosen) showClusters(state.method, Number(chosen[1]), Number(chosen[2]));
    else update({ color: Number($('color').value) });
  });
  $('level').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) changeLevel(state.level + step);
  });
  function changeLevel(level) {
    if (hasTree() && tree().columns[level]) showClusters(state.method, state.tree, level);
  }
  listenSearch($('search'), $('found'), searchIndex(atlas, {
    clusters: (m, t, level) => { layPlots(m); showClusters(m, t, level); },
    node: (m, t, node) => { layPlots(m); selectNode(node, m, t); },
    column: (c) => update({ color: c }),
    category: selectCategory,
  }));
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, select, textarea, dialog');
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = { '/': () => $('search').focus(), c: compare, e: save, '?': () => $('keys').showModal(),
      Escape: () => update({ selection: null }), '[': () => changeTree(state.tree - 1), ']': () => changeTree(state.tree + 1) };
    if (/^[1-9]$/.test(event.key)) changeLevel(Number(event.key) - 1);
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  });
  layPlots();
  update({}, { quiet: true });
  document.documentElement.dataset.ready = 'yes';
  // What a script, such as a test, may ask of the page.
  window.cellstrata = { atlas, state, plots: () => plots, picture, selected: () => mask };
}

start().catch((error) => {
  console.error(error);
  const hint = 'DecompressionStream' in window ? error.message : 'this browser is too old';
  document.body.prepend(make('p', { class: 'failed', role: 'alert' }, `The page cannot be shown: ${hint}`));
});
