"""The index finds what Gradio's own functions find."""

from studio.web.quick_client import _EVENTS, _EVENTS_BY_INDEX, _FIND, _FIND_BY_INDEX, SCRIPTS

COMPARED = """() => {
  const plain = (() => { %(find)s; return {find: %(name)s, %(events)s} })();
  const quick = (() => { %(quick_find)s; return {find: %(name)s, %(quick_events)s} })();
  let number = 0;
  const node = depth => ({id: ++number, props: {shared_props: {}},
    ...(depth ? {children: Array.from({length: 4}, () => node(depth - 1))} : {})});
  const root = node(4), many = number;
  const events = Array.from({length: 200}, (_, one) => ({targets: Array.from({length: one %% 4},
    (_, other) => [(one * 37 + other * (one %% 3)) %% many, other == 2 ? null : `event ${one}`])}));
  const told = (of, id) => { const found = of.find(root, id);
    return found && [found, JSON.stringify(of.find_attached_events(found, events).props.shared_props)] };
  const wrong = [];
  for (let id = 0; id < many + 3; id++) {
    const one = told(plain, id), other = told(quick, id);
    if (one === null ? other !== null : one[0] !== other[0] || one[1] !== other[1]) wrong.push(id);
  }
  return [many, wrong];
}"""


def test_the_index_finds_what_gradios_own_functions_find(browser):
    (core,) = SCRIPTS.glob("core-*.js")
    script = core.read_text("utf-8")
    find, events = _FIND.search(script), _EVENTS.search(script)
    page = browser.new_page()
    try:
        many, wrong = page.evaluate(
            COMPARED
            % {
                "name": find["name"],
                "find": find[0],
                "events": events[0],
                "quick_find": find.expand(_FIND_BY_INDEX),
                "quick_events": events.expand(_EVENTS_BY_INDEX),
            }
        )
    finally:
        page.close()
    assert many > 300 and not wrong
