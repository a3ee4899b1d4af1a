"""HTML that can be clicked: buttons, checkboxes and what they send. All text is escaped here.

An element with `data-act` sends {"act", "arg", "selected"} to its component's click handler, where all three are
checked like anything else that comes from a browser.
"""

from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr

MOST = 200  # rows of a list; more are counted

_JS = """
const send = (act, arg) => trigger('click', {act, arg,
  selected: [...element.querySelectorAll('input[data-tick]')].filter(box => box.checked).map(box => box.dataset.tick)});
element.addEventListener('click', event => {
  const all = event.target.closest('[data-all]');
  if (all) for (const box of element.querySelectorAll('input[data-tick]')) box.checked = all.dataset.all === 'yes';
  const hit = event.target.closest('button[data-act]');
  if (hit) send(hit.dataset.act, hit.dataset.arg || '');
});
element.addEventListener('keydown', event => {
  const field = event.target.closest('input[data-act]');
  if (field && event.key === 'Enter' && field.value.trim()) send(field.dataset.act, field.value);
  const chip = event.target.closest('[data-place]');
  if (!chip || field) return;
  const place = Number(chip.dataset.place);
  const side = event.altKey ? {ArrowLeft: -1, ArrowRight: 1}[event.key] : 0;
  if (side) send('move', `${place} ${place + side}`);
  else if (event.key === 'Delete' || event.key === 'Backspace') send('drop', String(place));
  else return;
  event.preventDefault();
});
let held = null;
element.addEventListener('dragstart', event => { held = event.target.closest('[data-place]'); });
element.addEventListener('dragover', event => { if (held) event.preventDefault(); });
element.addEventListener('drop', event => {
  const on = event.target.closest('[data-place]');
  if (held && on && on !== held) send('move', `${held.dataset.place} ${on.dataset.place}`);
  held = null; event.preventDefault();
});
"""


def clickable_html(name: str, value: str = "", script: str = _JS, **options) -> gr.HTML:
    """HTML with this element id; `component.click(handler)` gets what was clicked through `clicked`."""
    return gr.HTML(
        value, elem_id=name, elem_classes="clickable", html_template="${value}", js_on_load=script or None, **options
    )


def clicked(event: gr.EventData) -> tuple[str, str, list[str]]:
    """(act, arg, selected) of a click, each bounded text; ("", "", []) when it is nothing of ours."""
    data = event._data if isinstance(event._data, dict) else {}
    selected = data.get("selected")
    names = [one for one in selected if isinstance(one, str)] if isinstance(selected, list) else []
    return str(data.get("act", ""))[:40], str(data.get("arg", ""))[:4000], names[:20_000]


def image_link(path: Path) -> str:
    """The address of a file that the browser may read; relative, so that it also works behind a proxy."""
    return f"gradio_api/file={quote(str(path))}"


def button(act: str, arg: str, text: str, kind: str = "", label: str = "") -> str:
    """One that sends `act` and `arg`. kind: its classes; label: what is read out where the text alone says little."""
    spoken = f' aria-label="{escape(label)}"' if label else ""
    return (
        f'<button type="button" class="{kind}" data-act="{act}" data-arg="{escape(arg)}"{spoken}>'
        f"{escape(text)}</button>"
    )


def checkbox(name: str, label: str, on: bool = True) -> str:
    """One that is sent along with every click on its component."""
    checked = " checked" if on else ""
    return f'<input type="checkbox" data-tick="{escape(name)}" aria-label="{escape(label)}"{checked}>'


def select_all() -> str:
    """Select all, select none."""
    return (
        '<button type="button" class="link" data-all="yes">Select all</button>'
        '<button type="button" class="link" data-all="no">Select none</button>'
    )
