// Search: clusters, categories, columns and marker genes by their names.

/** List everything that can be found: its name, where it is, and what choosing it does. */
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
      const tree = method.trees[t];
      for (const [label, rows] of Object.entries(clusters)) {
        const node = tree ? nodeCalled(tree, column, label) : -1;
        if (node < 0) continue;
        for (const row of rows) {
          const where = `marker of ${label} · ${column} · ${method.name}`;
          add(String(row[0]), where, () => actions.node(m, t, node));
        }
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

function nodeCalled(tree, column, label) {
  const level = tree.columns.indexOf(column);
  return tree.labels.findIndex((name, node) => name === label && tree.levels[node] === level);
}

/** The best entries: the same name, then names that start so, then those that hold it. */
function findEntries(entries, query, most = 12) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return [];
  const rank = ({ key }) =>
    key === wanted ? 0 : key.startsWith(wanted) ? 1 : key.includes(wanted) ? 2 : 3;
  const ranks = [[], [], []];
  for (const entry of entries) ranks[rank(entry)]?.push(entry);
  return ranks.flat().slice(0, most);
}

/** Join the field and its list, as a combobox. */
function listenSearch(input, list, entries) {
  let found = [];
  let active = -1;
  const close = () => {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  };
  const choose = (entry) => {
    input.value = '';
    close();
    input.blur();
    entry.choose();
  };
  const mark = (place) => {
    active = found.length ? (place + found.length) % found.length : -1;
    [...list.children].forEach((item, i) => item.setAttribute('aria-selected', String(i === active)));
    if (active < 0) return;
    input.setAttribute('aria-activedescendant', `found-${active}`);
    list.children[active].scrollIntoView({ block: 'nearest' });
  };
  input.addEventListener('input', () => {
    found = findEntries(entries, input.value);
    const items = found.map((entry, i) =>
      make(
        'li',
        {
          role: 'option',
          id: `found-${i}`,
          onpointerdown: (event) => (event.preventDefault(), choose(entry)),
        },
        make('span', { class: 'name' }, named(entry.text)),
        make('span', { class: 'where' }, entry.where),
      ),
    );
    const nothing = make('li', { class: 'where' }, 'nothing found');
    list.replaceChildren(...(items.length ? items : [nothing]));
    list.hidden = !input.value.trim();
    input.setAttribute('aria-expanded', String(!list.hidden));
    if (found.length) mark(0);
    else active = -1;
  });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown') mark(active + 1);
    else if (event.key === 'ArrowUp') mark(active - 1);
    else if (event.key === 'Enter' && found[active]) choose(found[active]);
    else if (event.key === 'Escape') (input.value = ''), close(), input.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener('blur', close);
}
