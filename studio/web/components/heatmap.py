"""An adapter's block map and its energy by rank, as HTML and SVG that follow the theme."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

SPOKEN = {
    "self-attention": "attention of the image to itself",
    "cross-attention": "attention to the prompt",
    "time": "time and conditions",
    "projection": "projections in and out",
    "conv": "convolutions",
    "norm": "norms",
    "other": "others",
}
FIRST, LOWEST = 0.12, 100.0  # colour of the weakest that is seen, and how many times weaker than the strongest it is
LONGEST = 128  # directions in the chart


def block_table(where: Any) -> str:
    """A `BlockMap` as a table: colour is how much the weights change, grey is not in the file, hatched is not used."""
    kinds = list(where.kinds)
    shares = [cell.share for cell in where.cells.values() if cell.applied and cell.share > 0]
    high = max(shares, default=0.0)
    low = max(min(shares, default=0.0), high / LOWEST)
    rows = []
    for component in where.components:
        blocks = [block for block in where.blocks if block == component or block.startswith(f"{component}.")]
        if not component:
            blocks = [block for block in where.blocks if not _component(block, where.components)]
        whole = where.of_component(component)
        change = (
            f"changed by {_percent(whole.share)}" if whole.applied else "not in the file" if not whole.unused else ""
        )
        name = escape(component.replace("_", " ") or "unplaced")
        span = len(kinds) + 1
        rows.append(f'<tr class="part"><th colspan="{span}">{name} <small>{change}</small></th></tr>')
        if whole.applied or whole.unused:
            rows += [_row(where, block, component, kinds, low, high) for block in blocks]
    body = "".join(rows)
    return (
        f'<div class="heat"><table aria-label="Where the adapter acts"><thead>{_heads(kinds)}</thead>'
        f"<tbody>{body}</tbody></table>{_legend(low, high)}</div>"
    )


def _row(where: Any, block: str, component: str, kinds: Sequence[str], low: float, high: float) -> str:
    cells = "".join(_cell(where.cells.get((block, kind)), block, kind, low, high) for kind in kinds)
    short = block.removeprefix(f"{component}.").replace("down_blocks", "down").replace("up_blocks", "up")
    short = short.replace("mid_block", "mid").replace("encoder.layers", "layer").replace("_", " ")
    return f'<tr><th title="{escape(block)}">{escape(short)}</th>{cells}</tr>'


def _cell(cell: Any, block: str, kind: str, low: float, high: float) -> str:
    if cell is None:
        return "<td></td>"
    what = f"{escape(block)}, {_spoken(kind)}: "
    unused = f", {cell.unused} in the file but not used" if cell.unused else ""
    if not cell.applied:
        kinds = "unused" if cell.unused else "away"
        text = f"{cell.unused} in the file, but not used" if cell.unused else "not in the file"
        return f'<td class="{kinds}" title="{what}{text}"></td>'
    text = f"{cell.applied} of {cell.total} layers, changed by {_percent(cell.share)} of their weights{unused}"
    value = _depth(cell.share, low, high)
    return f'<td class="on{" unused" if cell.unused else ""}" style="--v:{value:.2f}" title="{what}{text}"></td>'


def _depth(share: float, low: float, high: float) -> float:
    """0 to 1 by the logarithm."""
    if share <= 0:
        return 0.0
    if high <= low:
        return 1.0
    return FIRST + (1 - FIRST) * math.log(max(share, low) / low) / math.log(high / low)


def _heads(kinds: Sequence[str]) -> str:
    """Groups of q, k, v, out above each other; the rest of one."""
    first, second = "", ""
    place = 0
    while place < len(kinds):
        group, _, letter = kinds[place].partition(" ")
        many = [kind for kind in kinds if kind.startswith(f"{group} ")] if letter else [kinds[place]]
        if letter:
            first += f'<th colspan="{len(many)}" class="group" title="{_spoken(kinds[place])}">{group}</th>'
            second += "".join(f"<th>{escape(kind.partition(' ')[2])}</th>" for kind in many)
        else:
            first += f'<th rowspan="2" class="tall" title="{_spoken(kinds[place])}"><span>{escape(group)}</span></th>'
        place += len(many)
    return f'<tr><th rowspan="2"></th>{first}</tr><tr>{second}</tr>'


def _legend(low: float, high: float) -> str:
    scale = f'<span>{_percent(low)} <i class="scale"></i> {_percent(high)} of the weights</span>' if high else ""
    return (
        f'<div class="key-line">{scale}<span><i class="away"></i> not in the file</span>'
        '<span><i class="unused"></i> in the file, not used</span></div>'
    )


def _spoken(kind: str) -> str:
    group, _, letter = kind.partition(" ")
    return f"{SPOKEN.get(group, group)}{f', {letter}' if letter else ''}"


def _component(block: str, components: Sequence[str]) -> str:
    return next((one for one in components if one and block.startswith(one)), "")


def _percent(share: float) -> str:
    value = 100 * share
    if value == 0:
        return "0 %"
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def energy_chart(kept: Mapping[str, Sequence[float]]) -> str:
    """A line for each group: the share of its change that the first k directions of each layer hold."""
    if not kept:
        return ""
    right = min(LONGEST, max(2, *(len(values) for values in kept.values())))
    lines, legend = [], []
    for number, (name, values) in enumerate(kept.items()):
        steps = [*values[:right], *[values[-1]] * (right - len(values))]
        places = (f"{x / (right - 1) * 1000:.0f} {1000 - 1000 * y:.0f}" for x, y in enumerate(steps))
        lines.append(f'<path class="line{number % 6}" d="M{"L".join(places)}"><title>{escape(name)}</title></path>')
        legend.append(f'<span><i class="line{number % 6}"></i>{escape(name)}</span>')
    grid = "".join(f'<path class="grid" d="M0 {mark}L1000 {mark}"/>' for mark in (0, 250, 500, 750, 1000))
    ys = "".join(f'<span class="y" style="bottom:{mark}%">{mark} %</span>' for mark in (0, 50, 100))
    marks = sorted({1, (1 + right) // 2, right})
    xs = "".join(f'<span class="x" style="left:{(mark - 1) / (right - 1) * 100:.0f}%">{mark}</span>' for mark in marks)
    slots = "".join(
        f'<div class="slot{" left" if k > right / 2 else ""}" style="left:{100 * (k - 1) / right:.2f}%;'
        f'width:{100 / right:.2f}%"><em>rank {k}\n'
        + "\n".join(f"{escape(name)} {_kept(values, k)}" for name, values in kept.items())
        + "</em></div>"
        for k in range(1, right + 1)
    )
    return (
        f'<div class="plot energy"><div class="legend">{"".join(legend)}</div><div class="chart" role="img" '
        'aria-label="Share of the change that each rank keeps"><svg viewBox="0 0 1000 1000" '
        f'preserveAspectRatio="none">{grid}{"".join(reversed(lines))}</svg>{ys}{xs}{slots}</div>'
        '<div class="note small">Kept of the change, by rank</div></div>'
    )


def _kept(values: Sequence[float], k: int) -> str:
    return f"{100 * values[min(k, len(values)) - 1]:.1f} %"
