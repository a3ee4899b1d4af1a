"""The adapters of the Generate tab: a row each, with what the file is, its strength, and more when it is unfolded."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, generation
from studio.web.components.clickable import board, button
from studio.web.components.html import note
from studio.workspace import Workspace

POOL = 8  # rows made once and shown when needed: rows made on the fly lose their values in Gradio
FIELDS = ("on", "strength", "text_strength", "start", "end", "blocks")
FRESH = (True, 1.0, None, 0.0, 1.0, "")
BLOCKS = ["", "up 0", "mid 0", "down 0", "up 0, mid 0", "down 0, mid 0", "up 0.5", "down 0.5"]


@dataclass(frozen=True)
class Row:
    """The components of one row; `values` in the order of FIELDS."""

    box: gr.Row
    about: gr.HTML
    values: tuple[Any, ...]
    remove: gr.Button


def make_row(index: int) -> Row:
    with gr.Row(visible=False, elem_classes="adapter", elem_id=f"adapter-{index}") as box, gr.Column(min_width=200):
        with gr.Row(elem_classes="adapter-head"):
            on = gr.Checkbox(value=True, label="On", min_width=60, scale=0, elem_id=f"on-{index}")
            strength = gr.Slider(
                -2, 2, value=1.0, step=0.05, label="Strength", interactive=True, scale=6, min_width=180,
                elem_id=f"strength-{index}",
            )  # fmt: skip
            remove = gr.Button("Remove", size="sm", scale=0, min_width=76, elem_id=f"remove-{index}")
        about = board(f"about-{index}")
        with gr.Accordion("Text encoder, blocks, steps", open=False, elem_id=f"more-{index}"):
            with gr.Row():
                text = gr.Number(
                    label="Strength on the text encoder", info="Empty: as the rest.", value=None, step=0.05,
                    min_width=140, elem_id=f"text-strength-{index}",
                )  # fmt: skip
                blocks = gr.Dropdown(
                    BLOCKS, value="", label="Blocks", info="Such as: up 0.5, down.1 0", allow_custom_value=True,
                    min_width=160, elem_id=f"blocks-{index}",
                )  # fmt: skip
            with gr.Row():
                share = {"minimum": 0, "maximum": 1, "step": 0.05, "interactive": True, "min_width": 140}
                start = gr.Slider(value=0, label="From this share of the steps", elem_id=f"start-{index}", **share)
                end = gr.Slider(value=1, label="To this share", elem_id=f"end-{index}", **share)
    return Row(box, about, (on, strength, text, start, end, blocks), remove)


def components(rows: Sequence[Row]) -> list[Any]:
    """What `shown` answers for, behind the keys."""
    return [part for row in rows for part in (row.box, row.about, *row.values)]


def values(rows: Sequence[Row]) -> list[Any]:
    return [part for row in rows for part in row.values]


def shown(workspace: Workspace, keys: Sequence[str], held: dict[int, Sequence[Any]] | None = None) -> list[Any]:
    """Updates for `components`, but for what is said of each adapter (`abouts`).

    held: {row: values in the order of FIELDS} of the rows that get new ones.
    """
    names = {key: label for label, key in generation.shelf(workspace)}
    out: list[Any] = []
    for index in range(POOL):
        key = keys[index] if index < len(keys) else ""
        if not key:
            out += [gr.update(visible=False), gr.skip(), *[gr.skip()] * len(FIELDS)]
            continue
        label = names.get(key, key.partition(":")[2])
        new = (held or {}).get(index)
        changes = [{"value": value} for value in new] if new else [{} for _ in FIELDS]
        changes[1]["label"] = label
        out += [gr.update(visible=True), gr.skip(), *[gr.update(**change) for change in changes]]
    return out


def abouts(workspace: Workspace, keys: Sequence[str] | None, base: str) -> list[str]:
    """What is said of the adapter in each row, beside the base of this name."""
    held = [*(keys or []), *[""] * POOL][:POOL]
    return [_about(workspace, key, base) if key else "" for key in held]


def _about(workspace: Workspace, key: str, base: str) -> str:
    line, words, bad = generation.facts_line(workspace, key, base)
    chips = "".join(button("word", word, word, "chip word", f"Put {word} into the prompt") for word in words)
    return note(line, bad=bad) + (f'<div class="words">{chips}</div>' if chips else "")


def uses(workspace: Workspace, keys: Sequence[str], flat: Sequence[Any]) -> list[dict[str, Any]]:
    """Fields of the AdapterUses of all rows that are on. Raises StudioError."""
    found = []
    for index, key in enumerate(keys[:POOL]):
        held = dict(zip(FIELDS, flat[index * len(FIELDS) :]))
        if key and held.pop("on"):
            found.append(generation.use_of(workspace, key, **held))
    return found


def add(keys: Sequence[str], wanted: Sequence[str]) -> tuple[list[str], list[int]]:
    """(keys, the new rows): each wanted one in a free row; one that is there already stays as it is."""
    held, new = [*keys, *[""] * POOL][:POOL], []
    for key in wanted:
        if key in held:
            continue
        if "" not in held:
            raise StudioError(f"{POOL} adapters at once is the most: remove one first.")
        new.append(held.index(""))
        held[new[-1]] = key
    return held, new


def known_keys(workspace: Workspace, keys: Any) -> list[str]:
    """Of what a browser remembers, the adapters that are still here."""
    here = {key for _, key in generation.shelf(workspace)}
    found = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    return [key for key in found if key in here or _is_checkpoint(workspace, key)][:POOL]


def _is_checkpoint(workspace: Workspace, key: str) -> bool:
    return "@" in key and generation.key_of(workspace, key.removeprefix("run:")) == key


def check(workspace: Workspace, key: str) -> None:
    """Raises StudioError when there is no such adapter."""
    if not key.startswith(generation.LIVE):
        adapter_files.adapter_path(workspace, key)


def word_in(prompt: str, word: str) -> str:
    """The prompt with a trigger word in front, once."""
    word = word.replace("(", r"\(").replace(")", r"\)")
    if word.lower() in (prompt or "").lower():
        return prompt
    return f"{word}, {prompt}" if (prompt or "").strip() else word


def strip_html(pictures: list[tuple[float, str]], title: str) -> str:
    """The film strip: every picture is sent once, the slider only shows another one."""
    frames = "".join(
        f'<img src="{escape(link)}" alt="{escape(title)} at {strength:g}" data-frame="{index}"'
        f"{'' if index == 0 else ' hidden'}>"
        for index, (strength, link) in enumerate(pictures)
    )
    marks = "".join(f"<span>{strength:g}</span>" for strength, _ in pictures)
    return (
        f'<div class="film"><div class="note"><b>{escape(title)}</b> at <b class="film-at">{pictures[0][0]:g}</b></div>'
        f'<div class="film-frames">{frames}</div>'
        f'<input type="range" min="0" max="{len(pictures) - 1}" value="0" step="1" aria-label="Strength of '
        f'{escape(title)}" data-strengths="{",".join(f"{strength:g}" for strength, _ in pictures)}">'
        f'<div class="film-marks">{marks}</div></div>'
    )


STRIP_JS = """
element.addEventListener('input', event => {
  const range = event.target.closest('.film input[type=range]');
  if (!range) return;
  const film = range.closest('.film');
  for (const frame of film.querySelectorAll('img')) frame.hidden = frame.dataset.frame !== range.value;
  film.querySelector('.film-at').textContent = range.dataset.strengths.split(',')[Number(range.value)];
});
"""
