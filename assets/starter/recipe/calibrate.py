"""How sure the captioner may be: measured in styles that its namer never saw, on known things and foreign ones.

Known: the names in the four art styles that the namer was not trained on. Foreign: emoji that are not in the
vocabulary, in the same styles, and smooth noise; there every name is wrong.
"""

import json
from pathlib import Path

import art
import judge
import torch
import torch.nn.functional as F

from studio.captioning.shapes import Shapes

PRECISION = 0.92  # of asserted names, on rows that the fit has not seen; nine in ten are asked for
FOREIGN = 100  # of each kind


def images(known: list[art.Concept], modules: Path, cache: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, SIZE, SIZE) images, -1..1, and the index of their name, -1 for foreign ones."""
    draw, palette = torch.Generator().manual_seed(3), art.colours_tensor()
    unseen = [style for style in judge.STYLES if style not in judge.NAMERS]
    glyphs, truth, _ = judge.renders(known, modules, cache, unseen)
    foreign = torch.cat(
        [judge.foreign(known, modules, judge.STYLES[style], FOREIGN, draw) for style in unseen if style != "streamline"]
    )
    every = torch.cat([glyphs, foreign])
    composed = art.compose(every, palette[torch.randint(len(palette), (len(every),), generator=draw)])
    noise = F.interpolate(torch.randn(FOREIGN // 2, 3, 6, 6, generator=draw), size=(art.SIZE,) * 2, mode="bicubic")
    strange = torch.full((len(foreign) + len(noise),), -1)
    return torch.cat([composed, noise.clamp(-1, 1)]), torch.cat([truth, strange])


def calibrate(scores: torch.Tensor, truth: torch.Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """(the captioner's calibration, figures). scores: (N, names) logits.

    The threshold and the figures come from chances that each half got from a fit on the other.
    """
    values, order = scores.log_softmax(1).topk(2, 1)
    right, known = (order[:, 0] == truth).float(), truth >= 0
    x = torch.stack([values[:, 0], values[:, 0] - values[:, 1]], 1)
    half = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) % 2 == 0
    chances = torch.empty(len(x))
    for rows in (half, ~half):
        bias, slope = _fit(x[~rows], right[~rows])
        chances[rows] = (bias + x[rows] @ slope).sigmoid()
    bias, slope = _fit(x, right)
    found = {"bias": bias, "likeness": slope[0], "lead": slope[1], "threshold": _threshold(chances, right)}
    said = chances >= found["threshold"]
    figures = {
        "asserted names that are right": right[said],
        "known things named": said[known].float(),
        "foreign things named": said[~known].float(),
        "known things, first guess right": right[known],
    }
    return {key: round(float(value), 4) for key, value in found.items()}, {
        key: rows.mean().item() for key, rows in figures.items()
    }


def _fit(x: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bias () and slope (2,) of the logistic regression of `right` (N,) on x (N, 2)."""
    weight, middle, spread = torch.zeros(3, requires_grad=True), x.mean(0), x.std(0)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        odds = weight[0] + ((x - middle) / spread) @ weight[1:]
        loss = F.binary_cross_entropy_with_logits(odds, right) + 1e-4 * weight[1:].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    slope = weight.detach()[1:] / spread
    return weight.detach()[0] - (slope * middle).sum(), slope


def _threshold(chance: torch.Tensor, right: torch.Tensor) -> float:
    """The lowest chance above which names are right as often as PRECISION; 2, which none reaches, for none."""
    sure, order = chance.sort(descending=True)
    share = right[order].cumsum(0) / torch.arange(1, len(order) + 1)
    enough = ((share >= PRECISION) & (torch.arange(len(order)) >= 10)).nonzero()[:, 0]
    return sure[int(enough[-1])].item() if len(enough) else 2.0


def write(known: list[art.Concept], modules: Path, starter: Path, cache: Path) -> dict[str, float]:
    """Put the calibration of the namer in `starter` into its vocabulary.json; returns the figures."""
    seen, truth = images(known, modules, cache)
    namer = Shapes.read(starter / "namer.safetensors")
    with torch.no_grad():
        scores = torch.cat([namer(chunk) for chunk in seen.split(64)])
    calibration, figures = calibrate(scores, truth)
    file = starter / "vocabulary.json"
    said = json.loads(file.read_text()) | {"calibration": calibration}
    file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return figures
