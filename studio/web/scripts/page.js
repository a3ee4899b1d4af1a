() => {
  // What belongs to the page and to no tab: the browser's title, a notification, the list of keys, an answer to clicks.
  const plain = document.title, bar = document.getElementById('jobs-bar');
  const on = () => { try { return localStorage.studioNotify === 'on' && Notification.permission === 'granted'; } catch { return false; } };
  const can = 'Notification' in window && isSecureContext && window.top === window;
  const ends = {done: 'finished', stopped: 'stopped', failed: 'failed'};
  let shown = null, stream = null;

  const titled = job => { document.title = job ? `${job.percent} % · ${job.name} — ${plain}` : plain; };
  const ended = (name, how) => {
    titled(null);
    if (on() && (document.hidden || !document.hasFocus())) new Notification(plain, {body: `${name}: ${how}`, tag: 'studio'});
  };
  const read = () => {  // the jobs bar, while the page shows and its timers run
    const going = bar?.querySelector('.going');
    const job = going && {name: going.dataset.name, percent: Number(going.dataset.percent)};
    const button = going?.querySelector('[data-notify]');
    if (button && can) {
      button.hidden = false;
      button.setAttribute('aria-pressed', String(on()));
    }
    if (stream) return;
    if (shown && !job) ended(shown.name, 'ended');
    else titled(job);
    shown = job;
  };
  if (bar) new MutationObserver(read).observe(bar, {subtree: true, childList: true});
  read();

  document.addEventListener('visibilitychange', () => {
    if (stream) { stream.close(); stream = null; }
    if (!document.hidden || !shown) return;
    const address = (window.gradio_config?.root || '') + '/studio/jobs';
    stream = new EventSource(address);
    stream.onmessage = event => {
      const job = JSON.parse(event.data);
      if (job.state === 'running') { shown = job; return titled(job); }
      stream.close();
      stream = null;
      if (shown) ended(shown.name, ends[job.state] || 'ended');
      shown = null;
    };
  });

  document.addEventListener('click', async event => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.role !== 'tab' && !button.disabled) {  // the server's answer may take a moment; this does not
      button.dataset.sent = '';
      setTimeout(() => delete button.dataset.sent, 400);
    }
    if (button.role === 'tab' && button.getAttribute('aria-selected') !== 'true' && !('sent' in button.dataset)) {
      event.stopImmediatePropagation();  // a tab may take long to be built the first time: it is marked before that
      button.dataset.sent = '';
      requestAnimationFrame(() => setTimeout(() => { button.click(); delete button.dataset.sent; }));
      return;
    }
    if (button.id === 'keys-button') list();
    if (!('notify' in button.dataset)) return;
    const want = !on() && await Notification.requestPermission() === 'granted';
    try { localStorage.studioNotify = want ? 'on' : 'off'; } catch {}
    button.setAttribute('aria-pressed', String(want));
  }, true);

  // Gradio shows an image inside a button that has no name.
  document.addEventListener('load', event => {
    const button = event.target.closest?.('.image-container button:not([aria-label])');
    if (!button) return;
    const label = button.closest('.block')?.querySelector('[data-testid=block-label]')?.textContent.trim();
    button.setAttribute('aria-label', label || 'Image');
  }, true);

  const keys = [
    ['Ctrl+Enter', 'Generate, from any field of the Generate tab'],
    ['Page Up, Page Down', 'Previous and next image of the dataset, also while writing its caption'],
    ['← →', 'The same, outside fields; Alt+← and Alt+→ everywhere'],
    ['Alt+← Alt+→', 'Move a tag of a caption; Delete removes it'],
    ['Tab, Enter, Space', 'Go through fields and buttons, and press them'],
    ['Esc', 'Close a list, a large image or this window'],
    ['?', 'This list'],
  ];
  const list = () => {
    let dialog = document.getElementById('keys');
    if (!dialog) {
      dialog = document.createElement('dialog');
      dialog.id = 'keys';
      dialog.setAttribute('aria-labelledby', 'keys-title');
      const rows = keys.map(([key, does]) => `<dt><kbd>${key}</kbd></dt><dd>${does}</dd>`).join('');
      dialog.innerHTML = `<form method="dialog"><h2 id="keys-title">Keys</h2><dl>${rows}</dl><button>Close</button></form>`;
      document.querySelector('.gradio-container').append(dialog);
      dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });
    }
    if (!dialog.open) dialog.showModal();
  };
  document.addEventListener('keydown', event => {
    const field = event.target.closest?.('input, textarea, select, [contenteditable=true]');
    if (event.key !== '?' || field || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    list();
  });
}
