() => {
  // What handlers send later: a text node that is one of the language's texts, and what is read out of its element.
  const code = LANGUAGE, texts = (window.gradio_config?.i18n_translations || {})[code] || {};
  const own = 'textarea, input, pre, code, kbd, script, style, .caption-label, .chip, [data-own]';
  const spoken = ['aria-label', 'title', 'placeholder'];
  const say = text => {
    const plain = text.trim();
    return plain && Object.hasOwn(texts, plain) ? text.replace(plain, () => texts[plain]) : text;
  };
  const change = node => {
    if (node.nodeType === Node.TEXT_NODE) {
      const said = say(node.data);
      if (said !== node.data && !node.parentElement?.closest(own)) node.data = said;
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      for (const name of spoken) {
        const there = node.getAttribute(name), said = there && say(there);
        if (said && said !== there) node.setAttribute(name, said);
      }
    }
  };
  const all = root => {
    change(root);
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    while (walk.nextNode()) change(walk.currentNode);
  };
  document.documentElement.lang = code;
  new MutationObserver(changes => {
    for (const one of changes) {
      if (one.type === 'characterData') change(one.target);
      else for (const node of one.addedNodes) all(node);
    }
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
  all(document.body);
}
