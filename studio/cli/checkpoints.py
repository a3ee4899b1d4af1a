"""The commands about whole checkpoints: extract, merge-checkpoint. They call the operations of services/checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.adapters import named_adapter, target_of, written
from studio.cli.terminal import WorkspaceOption, opened
from studio.errors import ConfigError

Base = Annotated[str, typer.Option(metavar="NAME", help="The base model (starter).")]


def extract(
    context: typer.Context,
    tuned: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="The trained checkpoint: a file or a folder.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    base: Base = "starter",
    rank: Annotated[int, typer.Option(metavar="N", help="The largest rank of a layer.")] = 32,
    conv_rank: Annotated[
        int | None, typer.Option(metavar="N", help="Of convolutions above 1 × 1; 0: without them (as --rank).")
    ] = None,
    keep: Annotated[
        float, typer.Option(metavar="X", help="Keep no more directions than hold this share of a layer's change.")
    ] = 1.0,
    text_encoder: Annotated[
        bool, typer.Option("--text-encoder/--no-text-encoder", help="Also of the text encoders.")
    ] = True,
    precision: Annotated[str, typer.Option(metavar="fp16|bf16|fp32", help="Of the LoRA's numbers.")] = "fp16",
    layout: Annotated[str, typer.Option(metavar="kohya|diffusers", help="Whose names its layers get.")] = "kohya",
    workspace: WorkspaceOption = "",
) -> int:
    """Extract a LoRA from a checkpoint that was trained from a base."""
    from studio.services.checkpoints import extract_lora

    job = extract_lora(
        opened(context, workspace),
        tuned,
        rank=rank,
        conv_rank=conv_rank,
        keep=keep,
        text_encoder=text_encoder,
        precision=precision,
        layout=layout,
        lines=(tuned, base),
        out=target_of(out),
    )
    return written(job, out)


def merge_checkpoint(
    context: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE:STRENGTH... OUT", help="The adapters, then the checkpoint to write.")
    ],
    base: Base = "starter",
    precision: Annotated[
        str, typer.Option(metavar="keep|fp16|bf16|fp32", help="Of the checkpoint's numbers.")
    ] = "keep",
    workspace: WorkspaceOption = "",
) -> int:
    """Merge adapters into a checkpoint of their base: a file where the base is one, else a folder."""
    from studio.generation import Recipe
    from studio.services.checkpoints import merge_into_checkpoint

    *given, out = files
    if not given:
        raise ConfigError("Merging needs an adapter, and the checkpoint to write last.")
    space = opened(context, workspace)
    recipe = Recipe(prompt="-", base=base, adapters=tuple(named_adapter(text, space) for text in given))
    if Path(out).expanduser().exists():
        raise ConfigError(f"{out} is there already: choose another name.")
    return written(merge_into_checkpoint(space, [], precision=precision, recipe=recipe, out=target_of(out)), out)
