"""Lines over strength: one small chart for each measure, with the range that is suggested shaded in all of them."""

from collections.abc import Sequence
from html import escape

Curve = Sequence[tuple[float, float]]  # (mean, spread) at each strength


def strength_chart(
    title: str,
    colour: str,
    strengths: Sequence[float],
    curve: Curve,
    shaded: tuple[float, float] | None = None,
    reference: tuple[float, str] | None = None,
) -> str:
    """HTML of one measure's chart. colour: a class, "train" or "held"; reference: a dashed line and what it is."""
    first, last = strengths[0], strengths[-1]
    ends = [value for mean, spread in curve for value in (mean - spread, mean + spread)]
    ends += [reference[0]] if reference else []
    margin = (max(ends) - min(ends)) * 0.12 or 0.05
    low, high = min(ends) - margin, max(ends) + margin

    def x(strength: float) -> float:
        return (strength - first) / (last - first) * 1000

    def path(points: Sequence[tuple[float, float]], name: str) -> str:
        places = (f"{x(at):.1f} {(high - value) / (high - low) * 1000:.1f}" for at, value in points)
        return f'<path class="{name}" d="M{"L".join(places)}"/>'

    marks = [low + (high - low) * part for part in (0, 0.25, 0.5, 0.75, 1)]
    drawn = "".join(path([(first, mark), (last, mark)], "grid") for mark in marks)
    if shaded:
        left, right = (x(at) for at in shaded)
        if left == right:  # one strength alone is a narrow band
            left, right = max(0.0, left - 15), min(1000.0, right + 15)
        drawn += f'<rect class="shade" x="{left:.1f}" y="0" width="{right - left:.1f}" height="1000"/>'
    if reference:
        drawn += path([(first, reference[0]), (last, reference[0])], "mark")
    upper = [(at, mean + spread) for at, (mean, spread) in zip(strengths, curve)]
    lower = [(at, mean - spread) for at, (mean, spread) in zip(strengths, curve)]
    drawn += path([*upper, *reversed(lower)], f"band {colour}-band")
    drawn += path([(at, mean) for at, (mean, _) in zip(strengths, curve)], colour)
    ys = "".join(f'<span class="y" style="bottom:{25 * place}%">{mark:.2f}</span>' for place, mark in enumerate(marks))
    xs = "".join(f'<span class="x" style="left:{x(at) / 10:.1f}%">{at:g}</span>' for at in strengths[::2])
    dashed = (
        f'<span><i style="border-color:var(--mark);border-top-style:dashed"></i>{escape(reference[1])}</span>'
        if reference
        else ""
    )
    return (
        f'<div class="plot small"><div class="legend"><b>{escape(title)}</b>{dashed}</div>'
        f'<div class="chart" role="img" aria-label="{escape(title)} by strength">'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{drawn}</svg>{ys}{xs}'
        f'<span class="axis">strength</span><span class="axis up">similarity</span>'
        f"{_slots(strengths, curve, x)}</div></div>"
    )


def _slots(strengths: Sequence[float], curve: Curve, x) -> str:
    """Invisible columns that show their numbers under the mouse."""
    width = 100 / (len(strengths) - 1) if len(strengths) > 1 else 100
    out = []
    for at, (mean, spread) in zip(strengths, curve):
        side = " left" if x(at) > 500 else ""
        out.append(
            f'<div class="slot{side}" style="left:{x(at) / 10 - width / 2:.2f}%;width:{width:.2f}%">'
            f"<em>strength {at:g}\n{mean:.3f} ± {spread:.3f}</em></div>"
        )
    return "".join(out)
