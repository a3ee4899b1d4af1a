"""The strength sweep: a row of one image at seven strengths, one of them large, and a slider through them."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.services.thumbnails import GRID, thumbnail
from studio.services.vocabulary import display_scale
from studio.web.components.clickable import image_link
from studio.workspace import Workspace

START = 1.0  # the strength that is shown first
SWEEP_JS = """
const show = (slider, place) => {
  const range = slider.querySelector('input[type=range]'), strength = range.dataset.strengths.split(',')[place];
  range.value = place;
  range.setAttribute('aria-valuetext', `strength ${strength}`);
  for (const frame of slider.querySelectorAll('.slider-frames img')) frame.hidden = frame.dataset.frame !== `${place}`;
  for (const one of slider.querySelectorAll('[data-show]'))
    one.setAttribute('aria-pressed', one.dataset.show === `${place}`);
  slider.querySelector('.slider-value').textContent = strength;
};
element.addEventListener('input', event => {
  const range = event.target.closest('.frame-slider input[type=range]');
  if (range) show(range.closest('.frame-slider'), Number(range.value));
});
element.addEventListener('click', event => {
  const one = event.target.closest('[data-show]');
  if (one) show(one.closest('.frame-slider'), Number(one.dataset.show));
});
"""


def first_shown(strengths: Sequence[float]) -> int:
    """The place of strength 1, or of the one that is nearest to it."""
    return min(range(len(strengths)), key=lambda place: abs(strengths[place] - START))


def sweep_html(workspace: Workspace, images: Sequence[tuple[float, Path]], title: str, size: tuple[int, int]) -> str:
    """Each image is sent once at its full size, and small for the row; slider and row only show another one.

    images: (strength, file) each; size: of an image, in pixels
    """
    strengths = [strength for strength, _ in images]
    first, name = first_shown(strengths), escape(title)
    frames, row = "", ""
    for place, (strength, path) in enumerate(images):
        link = escape(image_link(path))
        small = link if max(size) <= GRID else escape(image_link(thumbnail(workspace, path)))
        hidden = "" if place == first else " hidden"
        frames += f'<img src="{link}" alt="{name} at {strength:g}" data-frame="{place}"{hidden}>'
        row += (
            f'<button type="button" data-show="{place}" aria-pressed="{str(place == first).lower()}" '
            f'aria-label="Show strength {strength:g}"><img src="{small}" alt=""><span>{strength:g}</span></button>'
        )
    return (
        f'{_head(size)}<div class="note">Strength sweep: <b>{name}</b> at '
        f'<b class="slider-value">{strengths[first]:g}</b></div>'
        f'<div class="slider-frames">{frames}</div><div class="slider-row">{row}</div>'
        f'<input type="range" min="0" max="{len(images) - 1}" value="{first}" step="1" aria-label="Strength of '
        f'{name}" aria-valuetext="strength {strengths[first]:g}" '
        f'data-strengths="{",".join(f"{strength:g}" for strength in strengths)}"></div>'
    )


def waiting_html(strengths: Sequence[float], title: str, size: tuple[int, int]) -> str:
    """The same as high, while it is drawn."""
    cells = "".join(f'<div><div class="no-image"></div><span>{one:g}</span></div>' for one in strengths)
    return (
        f'{_head(size)}<div class="note">Strength sweep: <b>{escape(title)}</b></div>'
        f'<div class="slider-frames"><div class="no-image"></div></div><div class="slider-row">{cells}</div></div>'
    )


def _head(size: tuple[int, int]) -> str:
    scale = display_scale(max(size))
    style = f"--width: {size[0]}; --height: {size[1]}"
    return f'<div class="frame-slider{" unsmoothed" if scale > 1 else ""}" style="{style}">'


def strengths_of(recipe: Any, index: int) -> tuple[float, ...]:
    from studio.generation.strength_sweep import strengths_for

    return strengths_for(recipe.adapters[index])
