"""The loss chart as a small picture of its own: HTML and SVG that follow the theme and never flicker."""

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]
MOST_POINTS = 1000
SLOTS = 60  # columns that answer the mouse


def thin(points: Sequence, most: int = MOST_POINTS) -> list:
    """At most `most` of `points`, evenly spread, the last one always among them."""
    if len(points) <= most:
        return list(points)
    stride = (len(points) - 1) / (most - 1)
    return [points[round(index * stride)] for index in range(most)]


def loss_chart(losses: Sequence[tuple], looks: Sequence, steps: int) -> str:
    """HTML of the chart, or of its empty state.

    losses: (step, loss, smoothed); looks: the run's Validation events; steps: its length.
    """
    if not losses and not looks:
        return empty_chart("The loss is drawn here as training goes on.")
    losses = thin(losses)
    smooth = [(s, value) for s, _, value in losses]
    looks = thin(looks)
    held = [(look.step, look.loss) for look in looks]
    base = [(look.step, look.base_loss) for look in looks]
    upper = [(look.step, look.loss + look.spread) for look in looks]
    lower = [(look.step, look.loss - look.spread) for look in looks]
    low, high = _range([value for _, value in [*smooth, *upper, *lower, *base]])
    right = max(steps, *(s for s, _ in [*smooth, *held]), 1)

    def path(points: Sequence[Point], name: str) -> str:
        if len(points) == 1:  # one look at the held-out pictures is a short dash, not nothing
            points = [points[0], (points[0][0] + right * 0.01, points[0][1])]
        places = (f"{x / right * 1000:.1f} {(high - y) / (high - low) * 1000:.1f}" for x, y in points)
        return f'<path class="{name}" d="M{"L".join(places)}"/>' if points else ""

    marks = [low + (high - low) * part for part in (0, 0.25, 0.5, 0.75, 1)]
    grid = "".join(path([(0, mark), (right, mark)], "grid") for mark in marks)
    lines = path([*upper, *reversed(lower)], "spread") if any(look.spread for look in looks) else ""
    lines += path([(s, v) for s, v, _ in losses], "raw")
    lines += path(base, "base") + path(held, "held") + path(smooth, "train")
    spread = max(high - low, 1e-9)
    ys = "".join(
        f'<span class="y" style="bottom:{(m - low) / spread * 100:.0f}%">{_short(m, spread)}</span>' for m in marks
    )
    xs = "".join(f'<span class="x" style="left:{p * 100:.0f}%">{round(right * p):,}</span>' for p in (0, 0.5, 1))
    legend = '<span><i style="border-color:var(--train)"></i>training, smoothed</span>'
    if looks:
        legend += '<span><i style="border-color:var(--held)"></i>held-out pictures, ± standard error</span>'
        legend += (
            '<span><i style="border-color:var(--held);border-top-style:dashed"></i>held-out, without adapter</span>'
        )
    return (
        f'<div class="plot"><div class="legend">{legend}</div><div class="chart" role="img" aria-label="Loss by step">'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{grid}{lines}</svg>{ys}{xs}'
        f"{_slots(losses, looks, right)}</div></div>"
    )


def empty_chart(text: str) -> str:
    return f'<div class="empty"><b>No loss yet</b>{escape(text)}</div>'


def _range(values: list[float]) -> tuple[float, float]:
    """Room for what matters: the smoothed and held-out lines. Single noisy steps may leave the picture."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 0.1
    return max(0.0, low - margin), high + margin


def _short(value: float, spread: float) -> str:
    return f"{value:.4f}" if spread < 0.02 else f"{value:.3f}" if spread < 0.2 else f"{value:.2f}"


def _slots(losses: Sequence[tuple], looks: Sequence, right: float) -> str:
    """Invisible columns that show their numbers under the mouse, without a line of JavaScript."""
    if not losses:
        return ""
    slots = []
    picked = thin(losses, SLOTS)
    width = 100 / max(len(picked), 1) * (picked[-1][0] / right)
    for step, loss, smooth in picked:
        earlier = [look for look in looks if look.step <= step]
        text = f"step {step:,}\ntraining {smooth:.4f} (this step {loss:.4f})"
        if earlier:
            text += f"\nheld-out {earlier[-1].loss:.4f} ± {earlier[-1].spread:.4f}\nbase {earlier[-1].base_loss:.4f}"
        side = " left" if step > right / 2 else ""
        slots.append(
            f'<div class="slot{side}" style="left:{step / right * 100:.2f}%;width:{width:.2f}%"><em>{text}</em></div>'
        )
    return "".join(slots)
