// Search: clusters, categories, columns and marker genes by their names.

/** List everything with a name: its text, where it is, and what choosing it does. */
function searchIndex(atlas, actions) {
  const entries = [];
  const add = (text, where, choose) => entries.push({ text, where, choose, key: text.toLowerCase() });
  atlas.methods.forEach((method, m) => {
    method.trees.forEach((tree, t) => {
      tree.columns.forEach((column, level) => {
        add(column, `clusters of ${method.name}`, () => actions.clusters(m, t, level));
      });
      tree.labels.forEach((label, node) => {
        const where = `cluster · ${tree.columns[tree.levels[node]]} · ${method.name}`;
        add(label, where, () => actions.node(m, t, node));
      });
    });
    for (const [column, clusters] of Object.entries(method.markers?.rows ?? {})) {
      const t = method.trees.findIndex((tree) => tree.columns.includes(column));
      for (const [label, rows] of Object.entries(clusters)) {
        const node = t < 0 ? -1 : findNode(method.trees[t], column, label);
        if (node < 0) continue;
        const where = `marker of ${label} · ${column} · ${method.name}`;
        for (const [gene] of rows) add(String(gene), where, () => actions.node(m, t, node));
      }
    }
  });
  atlas.columns.forEach((column, c) => {
    add(column.name, column.names ? 'column' : 'numbers', () => actions.column(c));
    column.names?.forEach((name, category) => {
      add(name, `category · ${column.name}`, () => actions.category(c, category));
    });
  });
  return entries;
}

function findNode(tree, column, label) {
  const level = tree.columns.indexOf(column);
  return tree.labels.findIndex((name, node) => name === label && tree.levels[node] === level);
}

/** The best matches: equal names, then names that start with the query, then those that hold it. */
function findEntries(entries, query, limit = 12) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return [];
  const rank = ({ key }) =>
    key === wanted ? 0 : key.startsWith(wanted) ? 1 : key.includes(wanted) ? 2 : 3;
  const byRank = [[], [], [], []];
  for (const entry of entries) byRank[rank(entry)].push(entry);
  return byRank.slice(0, 3).flat().slice(0, limit);
}

/** Join the input and the list of matches to a combobox. */
function listenSearch(input, list, entries) {
  let matches = [];
  let active = -1;
  const close = () => {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  };
  const leave = () => {
    input.value = '';
    close();
    input.blur();
  };
  const choose = (entry) => {
    leave();
    entry.choose();
  };
  const activate = (index) => {
    active = matches.length ? (index + matches.length) % matches.length : -1;
    [...list.children].forEach((item, i) => item.setAttribute('aria-selected', String(i === active)));
    if (active < 0) return;
    input.setAttribute('aria-activedescendant', `match-${active}`);
    list.children[active].scrollIntoView({ block: 'nearest' });
  };
  input.addEventListener('input', () => {
    matches = findEntries(entries, input.value);
    const items = matches.map((entry, i) =>
      make(
        'li',
        {
          role: 'option',
          id: `match-${i}`,
          onpointerdown: (event) => (event.preventDefault(), choose(entry)),
        },
        make('span', { class: 'name' }, displayName(entry.text)),
        make('span', { class: 'where' }, entry.where),
      ),
    );
    const nothing = make('li', { class: 'where' }, 'nothing found');
    list.replaceChildren(...(items.length ? items : [nothing]));
    list.hidden = !input.value.trim();
    input.setAttribute('aria-expanded', String(!list.hidden));
    if (matches.length) activate(0);
    else active = -1;
  });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown') activate(active + 1);
    else if (event.key === 'ArrowUp') activate(active - 1);
    else if (event.key === 'Enter' && matches[active]) choose(matches[active]);
    else if (event.key === 'Escape') leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener('blur', close);
}
