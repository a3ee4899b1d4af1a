"""The loss chart, without a library: HTML and SVG that follow the theme and never flicker."""

from bisect import bisect
from collections.abc import Sequence
from html import escape

from studio.training.summary import Course, thin

Point = tuple[float, float]
SLOTS = 60  # columns that answer the mouse
COLOURS = 8  # of runs over each other; styles/train.css names them


def loss_chart(losses: Sequence[tuple], validations: Sequence, steps: int, best: tuple[int, str] = (0, "")) -> str:
    """HTML of the chart, or of its empty state.

    losses: (step, loss, smoothed); validations: the run's Validation events; steps: its length; best: the step that
    is marked, and what it is called.
    """
    if not losses and not validations:
        return empty_chart("The loss is shown here during training.")
    at = next((one for one in validations if one.step == best[0]), None)
    losses = thin(losses)
    smooth = [(s, value) for s, _, value in losses]
    validations = thin(validations)
    held = [(one.step, one.loss) for one in validations]
    base = [(one.step, one.base_loss) for one in validations]
    upper = [(one.step, one.loss + one.spread) for one in validations]
    lower = [(one.step, one.loss - one.spread) for one in validations]
    low, high = _range([value for _, value in [*smooth, *upper, *lower, *base]])
    right = max(steps, *(s for s, _ in [*smooth, *held]), 1)

    def path(points: Sequence[Point], name: str) -> str:
        return _path(points, name, right, low, high)

    lines = path([*upper, *reversed(lower)], "spread") if any(one.spread for one in validations) else ""
    lines += path([(s, v) for s, v, _ in losses], "raw")
    lines += path(base, "base") + path(held, "held") + path(smooth, "train")
    legend = '<span><i style="border-color:var(--train)"></i>training, smoothed</span>'
    if validations:
        legend += '<span><i style="border-color:var(--held)"></i>validation, ± standard error</span>'
        legend += (
            '<span><i style="border-color:var(--held);border-top-style:dashed"></i>validation, without adapter</span>'
        )
    mark = _mark(best, at.loss if at else None, right, low, high) if best[0] else ""
    return _framed(legend, lines, mark + _slots(losses, validations, right), right, low, high)


def compare_chart(runs: Sequence[tuple[str, Course]]) -> str:
    """HTML of several runs over each other, a colour each, or of the empty state. runs: (name, how it went)."""
    drawn = [(name, course) for name, course in runs if course.trained or course.held_out]
    if not drawn:
        return empty_chart("These runs have not taken a step yet.")
    curves = [line for _, one in drawn for line in (one.trained, one.held_out, one.base)]
    low, high = _range([value for line in curves for _, value in line])
    right = max(1, *(step for line in curves for step, _ in line))
    lines, legend = "", ""
    for number, (name, one) in enumerate(drawn):
        colour = f"run-{number % COLOURS}"
        lines += _path(one.base, f"base {colour}", right, low, high)
        lines += _path(one.trained, f"train thin {colour}", right, low, high)
        lines += _path(one.held_out, f"held {colour}", right, low, high)
        legend += f'<span class="{colour}"><i></i>{escape(name)}</span>'
    legend += '<span class="kinds"><i></i>validation <i class="thin"></i>training, smoothed <i class="dashed"></i>'
    legend += "validation, without adapter</span>"
    return _framed(legend, lines, _slots_of_runs(drawn, right), right, low, high, "several")


def empty_chart(text: str) -> str:
    """As high as the chart that will stand there."""
    return (
        '<div class="plot"><div class="legend">&nbsp;</div><div class="chart none"><div><b>No loss yet</b>'
        f"{escape(text)}</div></div></div>"
    )


def _mark(best: tuple[int, str], loss: float | None, right: float, low: float, high: float) -> str:
    """A labelled line at a step, with a dot where the validation loss is known."""
    step, word = best
    share = 100.0 if step >= right else 100 * step / right
    side = " left" if share > 70 else ""
    height = (loss - low) / max(high - low, 1e-9) * 100 if loss is not None else 0
    dot = f'<i style="bottom:{height:.1f}%"></i>' if loss is not None and 0 <= height <= 100 else ""
    return f'<div class="mark{side}" style="left:{share:.2f}%"><b>{escape(word)}: step {step:,}</b>{dot}</div>'


def _path(points: Sequence[Point], name: str, right: float, low: float, high: float) -> str:
    if len(points) == 1:  # one validation is a short dash, not nothing
        points = [points[0], (points[0][0] + right * 0.01, points[0][1])]
    places = (f"{x / right * 1000:.1f} {(high - y) / (high - low) * 1000:.1f}" for x, y in points)
    return f'<path class="{name}" d="M{"L".join(places)}"/>' if points else ""


def _framed(legend: str, lines: str, slots: str, right: float, low: float, high: float, kind: str = "") -> str:
    """The lines with a grid behind them, numbers at the edges and a legend on top."""
    spread = max(high - low, 1e-9)
    marks = [low + (high - low) * part for part in (0, 0.25, 0.5, 0.75, 1)]
    grid = "".join(_path([(0, mark), (right, mark)], "grid", right, low, high) for mark in marks)
    ys = "".join(
        f'<span class="y" style="bottom:{(m - low) / spread * 100:.0f}%">{_short(m, spread)}</span>' for m in marks
    )
    xs = "".join(f'<span class="x" style="left:{p * 100:.0f}%">{round(right * p):,}</span>' for p in (0, 0.5, 1))
    return (
        f'<div class="plot {kind}"><div class="legend">{legend}</div>'
        '<div class="chart" role="img" aria-label="Loss by step">'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{grid}{lines}</svg>{ys}{xs}{slots}</div></div>'
    )


def _range(values: list[float]) -> tuple[float, float]:
    """Room for what matters: the smoothed training and the validation lines. Single noisy steps may leave the chart."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 0.1
    return max(0.0, low - margin), high + margin


def _short(value: float, spread: float) -> str:
    return f"{value:.4f}" if spread < 0.02 else f"{value:.3f}" if spread < 0.2 else f"{value:.2f}"


def _slots(losses: Sequence[tuple], validations: Sequence, right: float) -> str:
    """Invisible columns that show their numbers under the mouse, without a line of JavaScript."""
    if not losses:
        return ""
    slots = []
    picked = thin(losses, SLOTS)
    width = 100 / max(len(picked), 1) * (picked[-1][0] / right)
    for step, loss, smooth in picked:
        earlier = [one for one in validations if one.step <= step]
        text = f"step {step:,}\ntraining {smooth:.4f} (this step {loss:.4f})"
        if earlier:
            text += f"\nvalidation {earlier[-1].loss:.4f} ± {earlier[-1].spread:.4f}\nbase {earlier[-1].base_loss:.4f}"
        side = " left" if step > right / 2 else ""
        slots.append(
            f'<div class="slot{side}" style="left:{step / right * 100:.2f}%;width:{width:.2f}%"><em>{text}</em></div>'
        )
    return "".join(slots)


def _slots_of_runs(runs: Sequence[tuple[str, Course]], right: float) -> str:
    """The same for several runs: what each had come to at that step."""
    slots = []
    for number in range(SLOTS):
        step = right * (number + 1) / SLOTS
        rows = [f"step {round(step):,}"]
        for name, one in runs:
            found = [
                f"{kind} {line[place - 1][1]:.4f}"
                for kind, line in (("validation", one.held_out), ("training", one.trained))
                if (place := bisect(line, step, key=lambda point: point[0]))
            ]
            if found:
                rows.append(f"{name[:24]}: {', '.join(found)}")
        side = " left" if number >= SLOTS / 2 else ""
        slots.append(
            f'<div class="slot{side}" style="left:{number / SLOTS * 100:.2f}%;width:{100 / SLOTS:.2f}%">'
            f"<em>{escape(chr(10).join(rows))}</em></div>"
        )
    return "".join(slots)
