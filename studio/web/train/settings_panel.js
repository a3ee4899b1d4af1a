// Search and marks of the settings. A rule in a style sheet also holds for fields that come into the page later.
const box = element.querySelector('.settings-search'), input = box.querySelector('input');
const found = box.querySelector('.found'), changed = box.querySelector('.changed');
const index = JSON.parse(box.dataset.index).map(([key, id, label, group, text]) => ({key, id, label, group, text}));
const EXTRAS = '#expert .group > div :is(#folder-table, #layer-table, #timestep-plot, #preview-lines)';
const MOST_OPEN = 30;  // matches; with more, the groups are listed closed
const part = id => document.getElementById(id);
const rules = part('settings-rules') || document.head.appendChild(Object.assign(
  document.createElement('style'), {id: 'settings-rules'}));
const opened = new Set();  // by the search, to be closed after it
const order = new Map(JSON.parse(box.dataset.keys).map((key, place) => [key, place]));  // of the values
let differing = [], asked = 0;

const head = id => part(id)?.querySelector(':scope > button.label-wrap');
const isOpen = id => head(id)?.classList.contains('open');
const soon = () => new Promise(done => setTimeout(done, 30));
const open = async (id, noted = true) => {
  for (let tries = 0; tries < 40 && !head(id); tries++) await soon();
  if (!head(id) || isOpen(id)) return;
  if (noted) opened.add(id);
  for (let tries = 0, held = 0; tries < 40 && held < 4 && head(id); tries++) {
    // A part that has only just come into the page forgets a click.
    if (isOpen(id)) held++;
    else { head(id).click(); held = 0; }
    await soon();
  }
};
const closeOpened = () => {
  for (const id of [...opened].reverse()) if (isOpen(id)) head(id).click();
  opened.clear();
};

const search = async () => {
  const words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean), mine = ++asked;
  if (words.join('').length < 2) {
    rules.textContent = ''; found.hidden = true; changed.hidden = false;
    return closeOpened();
  }
  const hits = index.filter(one => words.every(word => one.text.includes(word)));
  const above = hits.filter(one => !one.group), groups = new Set(hits.map(one => one.group).filter(Boolean));
  const others = index.filter(one => one.group && !hits.includes(one)).map(one => '#' + one.id);
  rules.textContent = [
    `:is(${others.join(',')}, ${EXTRAS}) { display: none !important }`,
    `#expert .group:not(${[...groups].map(one => `#${one}-settings`).join(',') || '.none'}) { display: none !important }`,
    above.length ? `:is(${above.map(one => '#' + one.id).join(',')}) { box-shadow: inset 0 0 0 2px var(--primary-400) }` : '',
  ].join('\n');
  const many = hits.length === 1 ? '1 setting matches' : `${hits.length} settings match`;
  found.textContent = hits.length ? many + (above.length ? ` (above: ${above.map(one => one.label).join(', ')})` : '')
    : `No setting matches “${input.value.trim()}”`;
  found.hidden = false; changed.hidden = true;
  if (!groups.size) return;
  await open('expert');
  for (const one of [...opened]) {
    if (one !== 'expert' && !groups.has(one.replace('-settings', ''))) { if (isOpen(one)) head(one).click(); opened.delete(one); }
  }
  if (hits.length > MOST_OPEN) return;
  for (const one of groups) { if (mine !== asked) return; await open(`${one}-settings`); }
};
const clear = () => { input.value = ''; search(); };

// Marks ---------------------------------------------------------------------------------------------------------------
const plain = value => Array.isArray(value) ? value.join('\n') : value === null || value === undefined ? ''
  : typeof value === 'boolean' ? value : String(value).trim();
const same = (one, other) => {
  const [a, b] = [plain(one), plain(other)];
  return a === b || (a !== '' && b !== '' && typeof a !== 'boolean' && typeof b !== 'boolean' && Number(a) === Number(b));
};
const shown = value => ({true: 'on', false: 'off', '': 'empty'})[plain(value)] ?? plain(value).split('\n')[0].slice(0, 24);
const attribute = (node, name, value) => {
  if (!node || node.getAttribute(name) === value) return;
  if (value === null) node.removeAttribute(name); else node.setAttribute(name, value);
};
const decorate = () => {
  const by = new Map(differing.map(one => [one.id, one])), counts = {};
  for (const one of index) {
    const node = part(one.id), now = by.get(one.id), mark = node?.querySelector(':scope > button.was');
    if (now && one.group) counts[one.group] = (counts[one.group] || 0) + 1;
    attribute(node, 'data-changed', now ? 'yes' : null);
    if (!now) mark?.remove();
    else if (node) {
      const button = mark || node.appendChild(Object.assign(document.createElement('button'), {type: 'button', className: 'was'}));
      const text = `${now.was} ↺`, title = `Reset ${one.label} to ${now.was}`;
      if (button.dataset.was !== text) {
        button.dataset.was = text;
        button.replaceChildren(Object.assign(document.createElement('span'), {textContent: 'default: '}), text);
      }
      attribute(button, 'title', title); attribute(button, 'aria-label', title); attribute(button, 'data-reset', one.key);
    }
  }
  for (const group of new Set(index.map(one => one.group))) {
    if (group) attribute(head(`${group}-settings`), 'data-changed', counts[group] ? `${counts[group]} changed` : null);
  }
};
const list = () => {
  changed.replaceChildren();
  if (!differing.length) { changed.textContent = 'As the preset has it'; return; }
  const button = (text, data, title) => {
    const made = Object.assign(document.createElement('button'), {type: 'button', className: 'link', textContent: text, title});
    Object.assign(made.dataset, data);
    return made;
  };
  const names = Object.assign(document.createElement('span'), {className: 'names'});
  differing.slice(0, 6).forEach((one, place) => names.append(place ? ', ' : '',
    button(one.label, {show: one.id}, `Show ${one.label}`)));
  changed.append(Object.assign(document.createElement('b'), {textContent: `${differing.length} changed`}), names,
    button('Reset all', {reset: '*'}, 'As the preset has it'));
};
const mark = (standard, values) => {
  differing = index.filter(one => one.key in standard && !same(values[order.get(one.key)], standard[one.key]))
    .map(one => ({...one, was: shown(standard[one.key])}));
  decorate();
  list();
};
const show = async id => {
  const one = index.find(other => other.id === id);
  if (input.value) clear();
  if (one?.group) { await open('expert', false); await open(`${one.group}-settings`, false); }
  for (let tries = 0; tries < 40 && !part(id); tries++) await soon();
  part(id)?.scrollIntoView({behavior: 'smooth', block: 'center'});
  part(id)?.querySelector('input, textarea')?.focus({preventScroll: true});
};
window.studioSettings = {mark, show};

const reset = event => {
  const hit = event.target.closest('button[data-reset]');
  if (hit) trigger('click', {act: 'reset', arg: hit.dataset.reset});
};
input.addEventListener('input', search);
input.addEventListener('keydown', event => { if (event.key === 'Escape' && input.value) { event.preventDefault(); clear(); } });
element.addEventListener('click', event => {
  const hit = event.target.closest('button[data-show]');
  if (hit) show(hit.dataset.show);
});
const form = element.closest('#train-form');
form.addEventListener('click', reset);
let waiting = 0;
new MutationObserver(() => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(decorate); })
  .observe(form, {childList: true, subtree: true});
