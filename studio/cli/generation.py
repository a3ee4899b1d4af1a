"""`python -m studio generate`: an image from a prompt and adapters. Its flags are Recipe's fields."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.adapters import FILE, named_adapter
from studio.cli.terminal import DONE, WorkspaceOption, flags_of, opened, say, with_flags
from studio.errors import GenerationError

OWN = ("prompt", "base", "adapters")  # fields with a flag of their own


def command() -> Callable[..., int]:
    """`generate` with a flag for every field of Recipe."""
    from studio.generation.recipe import Recipe
    from studio.services.base_models import OF_A_BASE

    return with_flags(generate, flags_of(Recipe, {}, without=OWN, of_base=("width", "height", *OF_A_BASE)))


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Option(metavar="T", help="What the image shows.")],
    base: Annotated[str, typer.Option(metavar="NAME", help="The base model (starter).")] = "starter",
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="FILE[:STRENGTH]", help=f"{FILE}; strength 1 if not given; may be repeated."),
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="In pixels, like 512x512 (the base's own).")] = "",
    out: Annotated[
        str, typer.Option(metavar="F.png", help="The file to write (a new one in the workspace's outputs).")
    ] = "",
    workspace: WorkspaceOption = "",
    **flags: Any,
) -> int:
    """Generate an image, with its recipe inside, and print its path."""
    space, target = opened(context, workspace), _out(out) if out else None
    given = {name: _typed(name, value) for name, value in flags.items() if value is not None}
    if size:
        width, height = _size(size)
        given = {"width": width, "height": height} | given
    applied = [
        {"file": path, "strength": strength} for path, strength in (named_adapter(one, space) for one in adapters or ())
    ]
    from studio.generation import generate_all, save_image
    from studio.generation.drawing import singles
    from studio.services.generation import compose, prompt_problems

    recipe = compose(space, applied, base, prompt=prompt, **given)
    for problem in prompt_problems(
        space, prompt, recipe.negative_prompt, recipe.base, recipe.guidance, recipe.clip_skip
    ):
        say(problem)
    if target and recipe.count > 1:
        raise GenerationError("--out names one file: leave it out for several images.")
    images = generate_all(recipe, progress=lambda step, total: say(f"step {step} of {total}"))
    for one, image in zip(singles(recipe), images):
        if target is None:
            path = save_image(image, one, space.outputs)
        else:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".studio-") as folder:
                path = save_image(image, one, Path(folder)).replace(target)
        print(path)
    return DONE


def _typed(name: str, text: str) -> Any:
    """The number that a flag of a number holds; else the text itself, for the schema to judge."""
    from studio.generation.recipe import Recipe
    from studio.schema import setting

    for kind in (int, float) if setting(Recipe, name).kind in (int, float) else ():
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not all(side.isascii() and side.isdigit() for side in (width, height)):
        raise GenerationError(f"--size needs WxH in pixels, like 128x128 (you gave {text!r}).")
    return int(width), int(height)


def _out(text: str) -> Path:
    """The place for the image, found wanting before minutes are spent on it."""
    path = Path(text).expanduser()
    if path.suffix.lower() != ".png":
        raise GenerationError(f"--out must end in .png, because the recipe is kept inside (you gave {text!r}).")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise GenerationError(f"Can't write {text}: choose a file in a folder that exists and can be written.")
    return path
