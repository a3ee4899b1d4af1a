"""What the Dataset tab shows of captions, findings, edits and the history, as HTML. All text is escaped here."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from html import escape

from studio.text import pluralize
from studio.web.components.clickable import MOST, button, checkbox, select_all

FEW = 12  # images shown of a finding


def chips(written: Sequence[tuple[str, str]], prose: bool) -> str:
    """The phrases of a caption with the author of each; tags can be moved, dropped and added.

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
    field = '<input data-act="add" placeholder="Add a tag, Enter" aria-label="Add a tag" maxlength="200">'
    add = "" if prose else f'<li class="add">{field}</li>'
    kinds = {author.partition(":")[0] for _, author in written}
    names = {"person": "you", "model": "a captioner", "rule": "a rule"}
    key = "".join(f'<span class="key {kind}">{text}</span>' for kind, text in names.items() if kind in kinds)
    legend = f'<div class="legend-line">Written by {key}</div>' if written else ""
    return f'<ul class="chips{" prose" if prose else ""}">{"".join(cells)}{add}</ul>{legend}'


def tokens_line(count: int, room: int, cut: str, chunks: int = 1) -> str:
    """How much of the text encoder's context the caption takes, in how many chunks, and what is cut off."""
    share = min(100.0, 100 * count / (room * chunks))
    many = f"{count} tokens, read in {chunks} chunks of {room}" if chunks > 1 else f"{count} of {room} tokens"
    over = f' <span class="bad">Cut off: “{escape(cut)}”</span>' if cut else ""
    return (
        f'<div class="tokens{" over" if cut else ""}"><div class="bar"><i style="width:{share:.0f}%"></i></div>'
        f'<div class="note small">{many}{over}</div></div>'
    )


def findings(found: Sequence, named: Mapping[str, str], link: Callable[[str], str | None], most: int = FEW) -> str:
    """Each finding with its images and remedies. named: the text of each remedy's button."""
    rows = []
    for number, finding in enumerate(found):
        remedies = "".join(
            button("fix", f"{number} {name}", named.get(name, name.capitalize()), "primary" if not place else "")
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
                box = checkbox(f"{number} {file}", f"Fix {file}") if finding.remedies else ""
                cells.append(_cell(file, finding.details.get(file, ""), link(file), end, box))
        more = len(finding.files) - shown
        count = f'<li class="more">and {more:,} more</li>' if more > 0 else ""
        rows.append(
            f'<section class="finding" data-kind="{escape(finding.kind)}"><header><b>{escape(finding.message)}</b>'
            f"<span>{remedies}</span></header>"
            f'<ul class="cells">{"".join(cells)}{count}</ul></section>'
        )
    return "".join(rows)


def _cell(file: str, detail: str, source: str | None, end: str = "", box: str = "") -> str:
    image = _image(source, file) or '<div class="no-image">no image</div>'
    words = f"<small>{escape(detail)}</small>" if detail else ""
    return f'<li class="cell{end}">{image}<label>{box} {escape(file)}</label>{words}</li>'


def proposals(proposed: Sequence, diff: Callable[[str, str], list[tuple[str, str]]]) -> str:
    """Each caption before and after, words coloured, with a box to take it or leave it."""
    rows = []
    for one in proposed[:MOST]:
        changes = "".join(
            f"<{tag}>{escape(text)}</{tag}> "
            for kind, text in diff(one.before, one.after)
            for tag in [{"same": "span", "removed": "del", "added": "ins"}[kind]]
        )
        box = checkbox(one.file, f"Select {one.file}")
        rows.append(f"<li><label>{box} <b>{escape(one.file)}</b></label><p>{changes}</p></li>")
    more = len(proposed) - MOST
    if more > 0:
        rows.append(f'<li class="more">and {more:,} more</li>')
    everything = button("apply all", "", f"Apply to all {len(proposed):,}") if more > 0 else ""
    head = (
        f"<header><b>{pluralize(len(proposed), 'caption')} would change</b>{select_all()}"
        f"{button('apply', '', 'Apply to selected', 'primary')}{everything}</header>"
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
        rows.append(f'<li class="more">and {more:,} less frequent</li>')
    return f'<ul class="tags">{"".join(rows)}</ul>' if rows else ""


def local_time(time: str) -> str:
    """Of an ISO 8601 time, in the zone of this machine; with its name where that is UTC, as on a server."""
    try:
        there = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return time[:16]
    return f"{there:%Y-%m-%d %H:%M}" + (" UTC" if there.utcoffset() == timedelta(0) else "")


def history(steps: Sequence, removed: Sequence[tuple[str, str | None]]) -> str:
    """The history of a dataset, newest first, and its removed images. removed: (file, address of its image)."""
    lines = []
    for step in steps[:MOST]:
        who = {"person": "you"}.get(step.author, step.author.replace(":", ", "))
        files = pluralize(len(step.files), "file")
        undone = ' class="undone"' if step.undone else ""
        when = local_time(step.time)
        lines.append(
            f"<li{undone}><b>{escape(step.label)}</b> <small>{escape(when)} · {escape(who)} · {files}"
            f"{' · undone' if step.undone else ''}</small></li>"
        )
    out = ""
    if removed:
        cells = "".join(
            _cell(file, "", source, "", checkbox(file, f"Select {file}")) for file, source in removed[:MOST]
        )
        back = button("restore", "", "Restore selected", "primary")
        out = (
            f"<section class='finding'><header><b>{len(removed):,} removed</b>{select_all()}{back}</header>"
            f'<ul class="cells">{cells}</ul></section>'
        )
    return f'{out}<ul class="past">{"".join(lines)}</ul>'


def comparison(files: Sequence[str], results: Sequence, sources: Sequence[str]) -> str:
    """The caption of each captioner for each image, a row an image. results: `Compared`."""
    head = "".join(
        f"<th>{escape(one.captioner)}<small>{one.seconds:.1f} s</small>"
        + (f'<p class="bad">{escape(one.problem)}</p>' if one.problem else "")
        + (button("use", str(number), "Use this captioner") if not one.problem else "")
        + "</th>"
        for number, one in enumerate(results)
    )
    rows = "".join(
        f'<tr><th><img src="{escape(source)}" alt="{escape(file)}"><small>{escape(file)}</small></th>'
        + "".join(f"<td>{escape(one.captions[place])}</td>" for one in results)
        + "</tr>"
        for place, (file, source) in enumerate(zip(files, sources))
    )
    return f'<table class="compared"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'


def worst_captions(rows: Sequence, link: Callable[[str], str | None], most: int = 24) -> str:
    """The captions that fit their images least; a click opens the image."""
    cells = "".join(
        f'<li class="cell">{_image(link(row.file), row.file)}{button("open", row.file, row.file, "link")}'
        f"<small>{row.similarity:.2f} · {escape(row.caption[:120])}</small></li>"
        for row in rows[:most]
    )
    return f'<ul class="cells">{cells}</ul>'


def _image(source: str | None, file: str) -> str:
    return f'<img src="{escape(source)}" alt="{escape(file)}" loading="lazy">' if source else ""
