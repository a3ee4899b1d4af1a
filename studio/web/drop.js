// Runs once: whatever is dropped anywhere on the page goes to the file field of drop.py; an overlay says what will be done.
// Fields that take images themselves keep images that are dropped on them.
const OWN = '#source, #drop-images', FIELD = '#drop-anywhere input[type=file]', MOST = 5000;  // files of one drop
const overlay = element.querySelector('.drop-overlay'), text = overlay.querySelector('b');
const holdsFiles = event => [...(event.dataTransfer?.types || [])].includes('Files');
const isImage = type => type.startsWith('image/') || type.includes('zip');
let depth = 0;

const promise = items => {
  const kinds = [...items].filter(item => item.kind === 'file').map(item => item.type);
  if (kinds.length && kinds.every(isImage)) {
    const one = kinds.length === 1 && kinds[0].startsWith('image/');
    return one ? 'Drop to take its recipe, or to add it to a dataset' : 'Drop to make a dataset of it';
  }
  return kinds.length > 1 ? `Drop to use ${kinds.length} files` : 'Drop to use it';
};
const show = on => { overlay.hidden = !on; };

// Every file below a folder, too: the browser hands folders over one by one.
const entriesOf = reader => new Promise((done, failed) => reader.readEntries(done, failed));
const filesOf = async entry => {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const found = [], reader = entry.createReader();
  for (let some = await entriesOf(reader); some.length && found.length <= MOST; some = await entriesOf(reader))
    for (const one of some) if (!one.name.startsWith('.')) found.push(...await filesOf(one));
  return found;
};
const say = async said => {  // by the overlay, since no file has reached the server
  text.textContent = said;
  show(true);
  await new Promise(done => setTimeout(done, 6000));
  show(false);
};

const hand = async files => {
  const transfer = new DataTransfer();
  if (files.length > MOST) await say(`The first ${MOST} files are taken, more at once are left out: use a zip or a folder`);
  for (const file of files.slice(0, MOST)) transfer.items.add(file);
  for (let left = 60; left; left--) {  // the field is away for a moment, while it holds what was dropped before
    const input = document.querySelector(FIELD);
    if (input) {
      input.files = transfer.files;
      input.dispatchEvent(new Event('change', {bubbles: true}));
      return;
    }
    await new Promise(done => setTimeout(done, 300));
  }
  await say('The page still takes in what was dropped before: drop this once more');
};

const listen = (name, act) => window.addEventListener(name, event => { if (holdsFiles(event)) act(event); }, true);
listen('dragenter', event => {
  depth++;
  text.textContent = promise(event.dataTransfer.items);
  show(true);
});
listen('dragleave', () => { if (--depth <= 0) { depth = 0; show(false); } });
listen('dragover', event => {
  event.preventDefault();
  event.dataTransfer.dropEffect = 'copy';
});
listen('drop', async event => {
  depth = 0;
  show(false);
  const items = [...event.dataTransfer.items].filter(item => item.kind === 'file');
  const own = event.target.closest?.(OWN);
  if (own && items.every(item => isImage(item.type))) return;
  event.preventDefault();
  event.stopPropagation();
  const entries = items.map(item => item.webkitGetAsEntry?.()), plain = [...event.dataTransfer.files];
  const files = entries.every(Boolean) ? (await Promise.all(entries.map(filesOf))).flat() : plain;
  if (files.length) await hand(files);
});
