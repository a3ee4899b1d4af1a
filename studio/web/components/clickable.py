"""Lists that can be clicked: chips of a caption, findings, proposed edits, tags, the history. All escaped here.

An element with `data-act` sends {"act", "arg", "ticked"} to its board's click handler, where all three are checked like
anything else that comes from a browser.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from studio.text import pluralize

MOST = 200  # rows of a list; more are counted
FEW = 12  # pictures shown of a finding

_JS = """
const tell = (act, arg) => trigger('click', {act, arg,
  ticked: [...element.querySelectorAll('input[data-tick]')].filter(box => box.checked).map(box => box.dataset.tick)});
element.addEventListener('click', event => {
  const all = event.target.closest('[data-all]');
  if (all) for (const box of element.querySelectorAll('input[data-tick]')) box.checked = all.dataset.all === 'yes';
  const hit = event.target.closest('button[data-act]');
  if (hit) tell(hit.dataset.act, hit.dataset.arg || '');
});
element.addEventListener('keydown', event => {
  const field = event.target.closest('input[data-act]');
  if (field && event.key === 'Enter' && field.value.trim()) tell(field.dataset.act, field.value);
  const chip = event.target.closest('[data-place]');
  if (!chip || field) return;
  const place = Number(chip.dataset.place);
  const side = event.altKey ? {ArrowLeft: -1, ArrowRight: 1}[event.key] : 0;
  if (side) tell('move', `${place} ${place + side}`);
  else if (event.key === 'Delete' || event.key === 'Backspace') tell('drop', String(place));
  else return;
  event.preventDefault();
});
let held = null;
element.addEventListener('dragstart', event => { held = event.target.closest('[data-place]'); });
element.addEventListener('dragover', event => { if (held) event.preventDefault(); });
element.addEventListener('drop', event => {
  const on = event.target.closest('[data-place]');
  if (held && on && on !== held) tell('move', `${held.dataset.place} ${on.dataset.place}`);
  held = null; event.preventDefault();
});
"""


def board(name: str, value: str = "") -> gr.HTML:
    """An empty board with this element id; `board.click(handler)` gets what was clicked through `clicked`."""
    return gr.HTML(value, elem_id=name, elem_classes="board", html_template="${value}", js_on_load=_JS)


def clicked(event: gr.EventData) -> tuple[str, str, list[str]]:
    """(act, arg, ticked) of a click, each bounded text; ("", "", []) when it is nothing of ours."""
    data = event._data if isinstance(event._data, dict) else {}
    ticked = data.get("ticked")
    words = [one for one in ticked if isinstance(one, str)] if isinstance(ticked, list) else []
    return str(data.get("act", ""))[:40], str(data.get("arg", ""))[:4000], words[:20_000]


def picture_link(path: Path) -> str:
    """Where the browser finds a file that it may see; relative, so that it also works behind a proxy."""
    return f"gradio_api/file={quote(str(path))}"


def button(act: str, arg: str, text: str, kind: str = "", label: str = "") -> str:
    """One that sends `act` and `arg`. kind: its classes; label: what is read out where the text alone says little."""
    spoken = f' aria-label="{escape(label)}"' if label else ""
    return (
        f'<button type="button" class="{kind}" data-act="{act}" data-arg="{escape(arg)}"{spoken}>'
        f"{escape(text)}</button>"
    )


def tick(name: str, label: str, on: bool = True) -> str:
    """A checkbox that is sent along with every click on its board."""
    checked = " checked" if on else ""
    return f'<input type="checkbox" data-tick="{escape(name)}" aria-label="{escape(label)}"{checked}>'


def both_ways() -> str:
    """Tick all, tick none."""
    return (
        '<button type="button" class="link" data-all="yes">Tick all</button>'
        '<button type="button" class="link" data-all="no">Tick none</button>'
    )


# What the Dataset tab shows -----------------------------------------------------------------------------------------


def chips(written: Sequence[tuple[str, str]], prose: bool) -> str:
    """The phrases of a caption with who wrote each; tags can be moved, dropped and added.

    written: (phrase, "person" | "model:NAME" | "rule:NAME")
    """
    cells = []
    for place, (phrase, author) in enumerate(written):
        kind, _, name = author.partition(":")
        by = {"person": "you", "model": f"the captioner {name}", "rule": f"a rule ({name})"}.get(kind, author)
        drop = "" if prose else button("drop", str(place), "×", "cross", f"Remove {phrase}")
        handle = "" if prose else f' draggable="true" tabindex="0" data-place="{place}"'
        cells.append(
            f'<li class="chip {escape(kind)}" title="Written by {escape(by)}"{handle}>{escape(phrase)}{drop}</li>'
        )
    add = '<input data-act="add" placeholder="Add a tag, Enter" aria-label="Add a tag" maxlength="200">'
    kinds = {author.partition(":")[0] for _, author in written}
    names = {"person": "you", "model": "a captioner", "rule": "a rule"}
    key = "".join(f'<span class="key {kind}">{text}</span>' for kind, text in names.items() if kind in kinds)
    legend = f'<div class="legend-line">Written by {key}</div>' if written else ""
    return f'<ul class="chips{" prose" if prose else ""}">{"".join(cells)}{"" if prose else add}</ul>{legend}'


def tokens_line(count: int, room: int, cut: str) -> str:
    """How much of the text encoder's room the caption takes, and what of it is not read."""
    share = min(100.0, 100 * count / room)
    over = f' <span class="bad">Not read: “{escape(cut)}”</span>' if cut else ""
    return (
        f'<div class="tokens{" over" if cut else ""}"><div class="bar"><i style="width:{share:.0f}%"></i></div>'
        f'<div class="note small">{count} of {room} tokens{over}</div></div>'
    )


def findings(found: Sequence, named: Mapping[str, str], picture: Callable[[str], str | None], most: int = FEW) -> str:
    """Each finding with its pictures and remedies. named: what to write on each remedy's button."""
    rows = []
    for number, finding in enumerate(found):
        remedies = "".join(
            button("mend", f"{number} {name}", named.get(name, name.capitalize()), "primary" if not place else "")
            for place, name in enumerate(finding.remedies)
        )
        groups = finding.groups or (finding.files,)
        shown, cells = 0, []
        for group in groups:
            for place, file in enumerate(group):
                if shown >= most:
                    break
                shown += 1
                end = " last" if finding.groups and place == len(group) - 1 else ""
                box = tick(f"{number} {file}", f"Mend {file}") if finding.remedies else ""
                cells.append(_cell(file, finding.details.get(file, ""), picture(file), end, box))
        more = len(finding.files) - shown
        count = f'<li class="more">and {more:,} more</li>' if more > 0 else ""
        rows.append(
            f'<section class="finding" data-kind="{escape(finding.kind)}"><header><b>{escape(finding.message)}</b>'
            f"<span>{remedies}</span></header>"
            f'<ul class="cells">{"".join(cells)}{count}</ul></section>'
        )
    return "".join(rows)


def _cell(file: str, detail: str, source: str | None, end: str = "", box: str = "") -> str:
    image = _image(source) or '<div class="no-picture">no picture</div>'
    words = f"<small>{escape(detail)}</small>" if detail else ""
    return f'<li class="cell{end}">{image}<label>{box} {escape(file)}</label>{words}</li>'


def proposals(proposed: Sequence, diff: Callable[[str, str], list[tuple[str, str]]]) -> str:
    """Each caption before and after, words coloured, with a box to take it or leave it."""
    rows = []
    for one in proposed[:MOST]:
        words = "".join(
            f"<{tag}>{escape(text)}</{tag}> "
            for kind, text in diff(one.before, one.after)
            for tag in [{"same": "span", "removed": "del", "added": "ins"}[kind]]
        )
        box = tick(one.file, f"Change {one.file}")
        rows.append(f"<li><label>{box} <b>{escape(one.file)}</b></label><p>{words}</p></li>")
    more = len(proposed) - MOST
    if more > 0:
        rows.append(f'<li class="more">and {more:,} more</li>')
    whole = button("apply all", "", f"Change all {len(proposed):,}") if more > 0 else ""
    head = (
        f"<header><b>{pluralize(len(proposed), 'caption')} would change</b>{both_ways()}"
        f"{button('apply', '', 'Change the ticked ones', 'primary')}{whole}</header>"
    )
    return f'{head}<ul class="diff">{"".join(rows)}</ul>'


def tag_table(counts: Mapping[str, int], total: int) -> str:
    """Tags by frequency; a click chooses one."""
    rows = [
        f'<li>{button("tag", tag, tag, "link")}<i style="width:{100 * count / max(1, total):.0f}%"></i>'
        f"<span>{count:,}</span></li>"
        for tag, count in list(counts.items())[:MOST]
    ]
    more = len(counts) - MOST
    if more > 0:
        rows.append(f'<li class="more">and {more:,} rarer ones</li>')
    return f'<ul class="tags">{"".join(rows)}</ul>' if rows else ""


def past(steps: Sequence, removed: Sequence[tuple[str, str | None]]) -> str:
    """The history of a set, newest first, and what was taken out of it. removed: (file, address of its picture)."""
    lines = []
    for step in steps[:MOST]:
        who = {"person": "you"}.get(step.author, step.author.replace(":", ", "))
        files = pluralize(len(step.files), "file")
        undone = ' class="undone"' if step.undone else ""
        when = step.time[:16].replace("T", " ")
        lines.append(
            f"<li{undone}><b>{escape(step.label)}</b> <small>{escape(when)} UTC · {escape(who)} · {files}"
            f"{' · taken back' if step.undone else ''}</small></li>"
        )
    out = ""
    if removed:
        cells = "".join(_cell(file, "", source, "", tick(file, f"Put back {file}")) for file, source in removed[:MOST])
        back = button("restore", "", "Put the ticked ones back", "primary")
        out = (
            f"<section class='finding'><header><b>{len(removed):,} removed, kept aside</b>{both_ways()}{back}</header>"
            f'<ul class="cells">{cells}</ul></section>'
        )
    return f'{out}<ul class="past">{"".join(lines)}</ul>'


def compared(files: Sequence[str], results: Sequence, sources: Sequence[str]) -> str:
    """What each captioner says of each picture, a row a picture. results: `Compared`."""
    head = "".join(
        f"<th>{escape(one.captioner)}<small>{one.seconds:.1f} s</small>"
        + (f'<p class="bad">{escape(one.problem)}</p>' if one.problem else "")
        + (button("use", str(number), "Take this one") if not one.problem else "")
        + "</th>"
        for number, one in enumerate(results)
    )
    rows = "".join(
        f'<tr><th><img src="{escape(source)}" alt=""><small>{escape(file)}</small></th>'
        + "".join(f"<td>{escape(one.captions[place])}</td>" for one in results)
        + "</tr>"
        for place, (file, source) in enumerate(zip(files, sources))
    )
    return f'<table class="compared"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'


def scored(rows: Sequence, picture: Callable[[str], str | None], most: int = 24) -> str:
    """The captions that fit their pictures least, each a way to its picture."""
    cells = "".join(
        f'<li class="cell">{_image(picture(row.file))}{button("open", row.file, row.file, "link")}'
        f"<small>{row.similarity:.2f} · {escape(row.caption[:120])}</small></li>"
        for row in rows[:most]
    )
    return f'<ul class="cells">{cells}</ul>'


def _image(source: str | None) -> str:
    return f'<img src="{escape(source)}" alt="" loading="lazy">' if source else ""
