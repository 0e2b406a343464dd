// The state, and what every control does to it: an action calls `update`, which shows the state.

/** What is shown at first: the clusters of the last method, beside the first method. */
function firstState(atlas) {
  const method = atlas.methods.length - 1;
  const indexOf = (name) => atlas.columns.findIndex((column) => column.name === name);
  const categorical = [...atlas.columns.keys()].filter((c) => atlas.columns[c].names?.length > 1);
  const mixColumns = new Set([...atlas.batch.slice(0, 1).map(indexOf), ...categorical]);
  return {
    methodsShown: [...new Set([0, method])],
    sideBySide: method > 0 && window.innerWidth >= 1200,
    method,
    tree: 0,
    level: 0,
    color: atlas.methods[method].trees.length ? 'clusters' : firstColumn(atlas),
    selection: null,
    hover: null,
    mixColumns: [...mixColumns].slice(0, 2),
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
  const currentMethod = () => atlas.methods[state.method];
  const currentTree = () => currentMethod().trees[state.tree];

  // ------------------------------------------------------------ actions

  /** Change the state and show it. A method that has no plot gets the last one. */
  function update(changes) {
    Object.assign(state, changes);
    const { method, methodsShown } = state;
    if (!methodsShown.includes(method)) state.methodsShown = [methodsShown[0], method];
    if ('selection' in changes || 'method' in changes || 'tree' in changes) {
      mask = maskOf(atlas, state.selection);
      announceSelection();
    }
    layOutPlots();
    showControls();
    showCells();
    showLegend();
    showTree();
    showDetails();
  }

  function selectNode(node, m = state.method, t = state.tree) {
    if (node < 0) return update({ selection: null, focus: -1 });
    const { levels, parents, columns } = atlas.methods[m].trees[t];
    const open = m === state.method && t === state.tree ? state.open : new Set();
    for (let up = parents[node]; up >= 0; up = parents[up]) open.add(up);
    const level = Math.min(Math.max(levels[node], state.level), columns.length - 1);
    const selection = { kind: 'node', method: m, tree: t, node };
    return update({ selection, method: m, tree: t, level, open, focus: node });
  }

  /** Show a level of a tree: open the tree down to it, drop a selection in another tree. */
  function showClusters(m, t, level, changes = {}) {
    const tree = atlas.methods[m].trees[t];
    if (!tree) {
      return update({ method: m, tree: 0, color: firstColumn(atlas), selection: null, ...changes });
    }
    const open = new Set([...tree.labels.keys()].filter((node) => tree.levels[node] < level));
    const same = m === state.method && t === state.tree;
    const selection = same || state.selection?.kind === 'category' ? state.selection : null;
    const focus = same ? state.focus : -1;
    return update({ method: m, tree: t, level, open, selection, focus, color: 'clusters', ...changes });
  }

  function selectCategory(column, category) {
    const selection = category < 0 ? null : { kind: 'category', column, category };
    update({ selection, color: column });
  }

  /** Show the clusters of another method, of the same resolution and level where it has them. */
  function changeMethod(m, changes = {}) {
    const { trees } = atlas.methods[m];
    const t = Math.max(0, trees.findIndex((tree) => tree.name === currentTree()?.name));
    const level = Math.min(state.level, (trees[t]?.columns.length ?? 1) - 1);
    const color = state.color === 'clusters' ? {} : { color: state.color };
    showClusters(m, t, level, { ...color, ...changes });
  }

  function changeTree(t) {
    const tree = currentMethod().trees[t];
    if (tree) showClusters(state.method, t, Math.min(state.level, tree.columns.length - 1));
  }

  function changeLevel(level) {
    if (currentTree()?.columns[level]) showClusters(state.method, state.tree, level);
  }

  function toggleNode(node, expand = !state.open.has(node)) {
    if (expand) state.open.add(node);
    else state.open.delete(node);
    update({ focus: node });
  }

  const toggleSideBySide = () => atlas.methods.length > 1 && update({ sideBySide: !state.sideBySide });

  function announceSelection() {
    const { selection } = state;
    $('status').textContent = selection
      ? `${titleOf(selection)}: ${comma(sum(mask))} cells selected` : 'All cells';
  }

  function titleOf(selection) {
    if (selection.kind === 'category') {
      return displayName(atlas.columns[selection.column].names[selection.category]);
    }
    return `Cluster ${atlas.methods[selection.method].trees[selection.tree].labels[selection.node]}`;
  }

  // ------------------------------------------------------------ cells

  /** Lay out one plot, or two side by side, unless they are there. */
  function layOutPlots() {
    const wanted = state.sideBySide ? state.methodsShown : [state.method];
    if (plots.map((plot) => plot.methodIndex).join() === wanted.join()) return;
    plots.forEach((plot) => plot.remove());
    $('plots').replaceChildren();
    plots = wanted.map(addPlot);
    document.documentElement.dataset.renderer = plots[0].renderer;
  }

  function addPlot(m, index) {
    const method = atlas.methods[m];
    const select = make('select', { 'aria-label': 'Method of this plot' },
      ...atlas.methods.map((item, i) => make('option', { value: i }, item.name)));
    select.value = String(m);
    select.addEventListener('change', () => {
      const chosen = Number(select.value);
      if (!state.sideBySide) return changeMethod(chosen);
      const methodsShown = state.methodsShown.with(index, chosen);
      return methodsShown.includes(state.method) ? update({ methodsShown })
        : changeMethod(chosen, { methodsShown });
    });
    const box = make('div', { class: 'plot', tabindex: 0, role: 'application',
      'aria-label': `Cells of ${method.name}; arrow keys pan, plus and minus zoom, 0 shows all` });
    const plot = makePlot(box, method, {
      onHover: (cell, event) => showTooltip(cell, event),
      onPick: selectAtCell,
    });
    const button = (text, label, onclick) =>
      make('button', { type: 'button', 'aria-label': label, title: label, onclick }, text);
    $('plots').append(make('article', { class: 'card' },
      make('div', { class: 'plot-head' }, atlas.methods.length > 1 ? select : make('h2', {}, method.name),
        make('span', { class: 'colored-by' }),
        make('span', { class: 'zoom' }, button('+', 'Zoom in', () => plot.zoomBy(1.4)),
          button('−', 'Zoom out', () => plot.zoomBy(1 / 1.4)), button('⤢', 'Show all', plot.reset))),
      box));
    return Object.assign(plot, { methodIndex: m });
  }

  /** Select what a clicked cell belongs to: the category it is colored by, or its cluster. */
  function selectAtCell(cell) {
    if (cell < 0) return update({ selection: null });
    if (state.color >= 0 && atlas.columns[state.color].names) {
      const category = atlas.columns[state.color].values[cell];
      if (category !== MISSING_CODE) return selectCategory(state.color, category);
    }
    const node = currentTree() ? currentTree().nodeOfCell[state.level][cell] : MISSING_CODE;
    return node === MISSING_CODE ? update({ selection: null }) : selectNode(node);
  }

  function showCells() {
    const column = colorColumn(atlas, state);
    const visible = state.hover ? maskOf(atlas, state.hover) : mask;
    const colors = cellColors(atlas, column, visible);
    const order = drawOrder(atlas, column, visible);
    const caption = column.nodes ? `${column.name} of ${currentMethod().name}` : column.name;
    plots.forEach((plot, i) => {
      plot.show(colors, order, labelsOf(plot.method, column));
      $('plots').children[i].querySelector('.colored-by').textContent = caption;
    });
  }

  /** The labels of a plot; those outside of the selection are pale. */
  function labelsOf(method, column) {
    if (!column.nodes) return [];
    const tree = currentTree();
    const highlight = state.hover ?? state.selection;
    const isStrong = (node) => {
      if (highlight?.kind !== 'node') return !highlight;
      if (atlas.methods[highlight.method].trees[highlight.tree] !== tree) return false;
      return isWithin(tree, node, highlight.node) || isWithin(tree, highlight.node, node);
    };
    return labelPositions(method, column).map(({ category, x, y }) => {
      const node = column.nodes[category];
      return { text: tree.labels[node], x, y, strong: isStrong(node) };
    });
  }

  function showTooltip(cell, event) {
    const tooltip = $('tooltip');
    tooltip.hidden = cell < 0 || state.color === -1;
    if (tooltip.hidden) return;
    const column = colorColumn(atlas, state);
    const code = column.values[cell];
    const value = code === MISSING_CODE ? 'no value'
      : column.names ? displayName(column.names[code])
        : displayName(formatNumber(column.min + column.step * code));
    const children = [make('b', {}, value), ` ${column.name}`];
    const mix = atlas.columns[state.mixColumns[0]];
    if (mix && mix !== column && mix.values[cell] !== MISSING_CODE) {
      const category = displayName(mix.names[mix.values[cell]]);
      children.push(make('br'), make('b', {}, category), ` ${mix.name}`);
    }
    tooltip.replaceChildren(...children);
    const left = Math.min(event.clientX + 14, window.innerWidth - tooltip.offsetWidth - 8);
    Object.assign(tooltip.style, { left: `${left}px`, top: `${event.clientY + 14}px` });
  }

  // ------------------------------------------------------------ panels

  function showControls() {
    const options = (texts) => texts.map((text, i) => make('option', { value: i }, text));
    $('method').replaceChildren(...options(atlas.methods.map((method) => method.name)));
    $('method').value = String(state.method);
    $('tree').replaceChildren(...options(currentMethod().trees.map((tree) => tree.title)));
    $('tree').value = String(state.tree);
    const buttons = (currentTree()?.level_names ?? []).map((name, level) => make('button', {
      type: 'button', role: 'radio', 'aria-checked': String(level === state.level),
      tabindex: level === state.level ? 0 : -1,
      onclick: () => changeLevel(level),
    }, name));
    const focused = $('level').contains(document.activeElement);
    $('level').replaceChildren(...buttons);
    if (focused) buttons[state.level].focus();
    showColorOptions();
    $('compare').hidden = atlas.methods.length < 2;
    $('compare').setAttribute('aria-pressed', String(state.sideBySide));
    $('plots').classList.toggle('two', state.sideBySide);
  }

  function showColorOptions() {
    const group = (label, options) => options.length ? [make('optgroup', { label }, ...options)] : [];
    const clusters = currentMethod().trees.flatMap((tree, t) => tree.columns.map((name, level) =>
      make('option', { value: `t${t}.${level}` }, name)));
    const columns = (categorical) => atlas.columns.flatMap((column, c) =>
      Boolean(column.names) === categorical ? [make('option', { value: c }, column.name)] : []);
    $('color').replaceChildren(...group(`Clusters of ${currentMethod().name}`, clusters),
      ...group('Categories', columns(true)), ...group('Numbers', columns(false)));
    $('color').value = state.color === 'clusters' ? `t${state.tree}.${state.level}` : String(state.color);
  }

  function showLegend() {
    const column = colorColumn(atlas, state);
    const { selection } = state;
    const entry = (category) => column.nodes
      ? { kind: 'node', method: state.method, tree: state.tree, node: column.nodes[category] }
      : { kind: 'category', column: state.color, category };
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const scroll = $('legend').scrollTop;
    const focus = [...$('legend').querySelectorAll('button')].indexOf(document.activeElement);
    drawLegend($('legend'), atlas, column, {
      chosen: column.names ? column.names.findIndex((_, category) => same(entry(category), selection)) : -1,
      onHover: (category) => {
        const hover = category < 0 ? null : entry(category);
        if (same(hover, state.hover)) return;
        state.hover = hover;
        showCells();
      },
      onChoose: (category) => {
        if (!column.nodes) return selectCategory(state.color, category);
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

  let compositions = {}; // per node, kept until tree or column change

  function treeCompositions() {
    const key = [state.method, state.tree, state.mixColumns[0]].join();
    if (compositions.key !== key) {
      const column = atlas.columns[state.mixColumns[0]];
      compositions = { key,
        counts: column ? countsPerNode(currentTree(), column) : currentTree().labels.map(() => []),
        overall: column ? countCategories(column, null) : [] };
    }
    return compositions;
  }

  function showTree() {
    const list = $('nodes');
    const tree = currentTree();
    list.hidden = !tree;
    if (!tree) return;
    const { selection, open, focus } = state;
    const inTree = selection?.kind === 'node' && selection.tree === state.tree && selection.method === state.method;
    const { counts, overall } = treeCompositions();
    const scroll = list.scrollTop;
    const focused = list.contains(document.activeElement);
    drawTree(list, atlas, tree, {
      open,
      selected: inTree ? selection.node : selection ? null : -1,
      focus,
      counts,
      overall,
      verdictOf: (node) => verdictOf(atlas.methods[state.method], tree, node),
      onSelect: (node) => selectNode(node),
      onToggle: toggleNode,
    });
    list.scrollTop = scroll;
    const row = list.querySelector('[tabindex="0"]') ?? list.firstElementChild;
    row.tabIndex = 0;
    if (inTree || focused) row.scrollIntoView({ block: 'nearest' });
    if (focused) row.focus({ preventScroll: true });
  }

  function onTreeKey(event) {
    const rows = [...$('nodes').children];
    const index = rows.indexOf(document.activeElement);
    if (index < 0 || event.ctrlKey || event.metaKey) return;
    const node = Number(rows[index].dataset.node);
    const focusNode = (focus) => update({ focus });
    const focusRow = (i) =>
      focusNode(Number(rows[Math.max(0, Math.min(i, rows.length - 1))].dataset.node));
    const foldable = node >= 0 && currentTree().children[node].length > 0;
    const closed = foldable && !state.open.has(node);
    const opened = foldable && state.open.has(node);
    const keys = {
      ArrowDown: () => focusRow(index + 1),
      ArrowUp: () => focusRow(index - 1),
      Home: () => focusRow(0),
      End: () => focusRow(rows.length - 1),
      ArrowRight: () => (closed ? toggleNode(node, true) : opened || node < 0 ? focusRow(index + 1) : null),
      ArrowLeft: () => (opened ? toggleNode(node, false) : node >= 0 ? focusNode(currentTree().parents[node]) : null),
      Enter: () => selectNode(node),
      ' ': () => selectNode(node),
    };
    if (!keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation();
  }

  function showDetails() {
    const { selection } = state;
    const details = !selection ? { title: 'All cells', size: atlas.cells, tiles: [],
      subtitle: 'Click a cluster, a cell or a category for details.' }
      : { title: titleOf(selection), onClear: () => update({ selection: null }),
        ...(selection.kind === 'node' ? describeNode(selection) : describeCategory(selection)) };
    details.tiles.unshift([comma(details.size), 'cells', 'Number of cells'],
      [percent(details.size / atlas.cells), 'of all', 'Share of all cells']);
    details.compositions = state.mixColumns.map((c, index) => {
      const column = atlas.columns[c];
      return { column, index, overall: countCategories(column, null), counts: countCategories(column, mask),
        sampled: atlas.drawn < atlas.cells,
        onColumn: (chosen) => update({ mixColumns: state.mixColumns.with(index, chosen) }) };
    });
    if (details.compositions.length) {
      const { column, counts, overall } = details.compositions[0];
      const hint = `Entropy of ${column.name} relative to that of all cells: 0 is a single category`;
      details.tiles.push([evenness(counts, overall).toFixed(2), 'mixing', hint]);
    }
    drawDetails($('details'), atlas, details);
  }

  function describeCategory({ column, category }) {
    const { name, counts } = atlas.columns[column];
    return { subtitle: name, color: categoryColor(atlas, category), size: counts[category], tiles: [] };
  }

  /** The verdict on the split that separates a cluster from its siblings, if there is one. */
  function verdictOf({ splits }, tree, node) {
    const rows = splits?.rows[tree.columns[tree.levels[node]]]?.[tree.labels[node]];
    return rows?.[0][splits.fields.indexOf('verdict')] ?? null;
  }

  function describeNode({ method: m, tree: t, node }) {
    const method = atlas.methods[m];
    const tree = method.trees[t];
    const column = tree.columns[tree.levels[node]];
    const rowsOf = (table) => {
      const rows = table?.rows[column]?.[tree.labels[node]];
      return rows ? { fields: table.fields, rows } : null;
    };
    const n = tree.children[node].length;
    return { subtitle: `${column} of ${method.name}`, size: tree.sizes[node],
      color: categoryColor(atlas, tree.indexInLevel[node]),
      tiles: n ? [[n, n > 1 ? 'subclusters' : 'subcluster', 'Clusters of the next level']] : [],
      markers: rowsOf(method.markers), splits: rowsOf(method.splits) };
  }

  // ------------------------------------------------------------ start

  const picture = () => drawPicture(atlas, colorColumn(atlas, state), plots, $('plots'));

  function exportPicture() {
    const file = `${atlas.title}_${colorColumn(atlas, state).name}.png`;
    downloadPicture(picture(), file.replace(/[^\w.-]+/g, '_'));
  }

  $('title').textContent = atlas.title;
  const drawn = atlas.drawn < atlas.cells ? ` · ${comma(atlas.drawn)} drawn, with some of every cluster` : '';
  $('cells').textContent = `${comma(atlas.cells)} cells${drawn}`;
  $('notes').textContent = atlas.leftOut.length
    ? `Left out: ${atlas.leftOut.map((item) => `${item.name} (${item.why})`).join(', ')}` : '';
  drawWarnings($('warnings'), atlas.warnings);
  $('compare').addEventListener('click', toggleSideBySide);
  $('export').addEventListener('click', exportPicture);
  $('help').addEventListener('click', () => $('shortcuts').showModal());
  $('method').addEventListener('change', () => changeMethod(Number($('method').value)));
  $('tree').addEventListener('change', () => changeTree(Number($('tree').value)));
  $('nodes').addEventListener('keydown', onTreeKey);
  $('color').addEventListener('change', () => {
    const clusters = $('color').value.match(/^t(\d+)\.(\d+)$/);
    if (clusters) showClusters(state.method, Number(clusters[1]), Number(clusters[2]));
    else update({ color: Number($('color').value) });
  });
  $('level').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) changeLevel(state.level + step);
  });
  listenSearch($('search'), $('matches'), searchIndex(atlas, {
    clusters: showClusters,
    node: (m, t, node) => selectNode(node, m, t),
    column: (c) => update({ color: c }),
    category: selectCategory,
  }));
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, select, textarea, dialog');
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      '/': () => $('search').focus(),
      '?': () => $('shortcuts').showModal(),
      c: toggleSideBySide,
      e: exportPicture,
      Escape: () => update({ selection: null }),
      '[': () => changeTree(state.tree - 1),
      ']': () => changeTree(state.tree + 1),
    };
    if (/^[1-9]$/.test(event.key)) changeLevel(Number(event.key) - 1);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  update({});
  document.documentElement.dataset.ready = 'yes';
  // For scripts such as tests, and for the console.
  window.cellstrata = { atlas, state, plots: () => plots, picture, selected: () => mask };
}

start().catch((error) => {
  console.error(error);
  const hint = 'DecompressionStream' in window ? error.message : 'this browser is too old';
  document.body.prepend(make('p', { class: 'failed', role: 'alert' }, `The page cannot be shown: ${hint}`));
});
