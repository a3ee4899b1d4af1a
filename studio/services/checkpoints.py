"""Whole checkpoints: adapters merged into one, and a LoRA extracted from one. Beside training, on the CPU."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from studio.errors import AdapterError
from studio.services import base_models
from studio.services.adapters import MAKE, PARTS, AdapterTitle, Made, start_making, stopping, teller
from studio.services.generation import composed
from studio.services.jobs import Job
from studio.services.operations import operation
from studio.services.parameters import BaseName, Layout, List, Rank
from studio.text import pluralize
from studio.workspace import Workspace, atomic_copy, free_path, safe_name

WORST = 5  # layers whose error is named
CheckpointPrecision = Annotated[
    Literal["keep", "fp16", "bf16", "fp32"], Field(description="Of the new checkpoint's numbers; keep: as the base's.")
]
LoraPrecision = Annotated[Literal["fp16", "bf16", "fp32"], Field(description="Of the numbers of the LoRA.")]
ConvRank = Annotated[
    int | None, Field(ge=0, le=1024, description="Rank of convolutions above 1 × 1; 0: without them; empty: as rank.")
]
Keep = Annotated[
    float, Field(gt=0, le=1, description="A layer keeps no more directions than hold this share of its change.")
]


@operation(needs="models")
def merge_into_checkpoint(
    workspace: Workspace,
    adapters: Annotated[List, Field(max_length=20, description='[{"run": NAME, "strength": 0.8}, …]')],
    base: BaseName = "starter",
    name: AdapterTitle = "",
    precision: CheckpointPrecision = "keep",
    *,
    recipe: Any = None,
    out: Path | None = None,
) -> Job:
    """Merge adapters at their strengths into a checkpoint of their base, for programs that load it alone.

    A base that is one .safetensors file stays one, in its authors' layout; a folder stays a diffusers folder. It lies
    in the workspace's exports and stands on the list of bases. recipe: a Recipe, instead of adapters and base. out:
    where to write it.
    """
    asked = {"prompt": "-", "negative": "", "adapters": adapters, "base": base, "more": {}}
    recipe = recipe or composed(workspace, asked)
    line, used = recipe.base, recipe.adapters
    if not used:
        raise AdapterError("There is nothing to merge: add an adapter first and turn it on.")
    title = safe_name(name.strip() or "-".join(dict.fromkeys(one.title for one in used))[:60] or "merged")

    def work(job: Job) -> None:
        from studio.basemodels import base_folder
        from studio.generation.checkpoint_export import export_checkpoint

        suffix = ".safetensors" if base_folder(line).is_file() else ""
        job.message = "Reading the headers"
        with stopping(job):
            workspace.exports.mkdir(parents=True, exist_ok=True)
            target = out or free_path(workspace.exports, f"{title}{suffix}")
            made, notes = export_checkpoint(used, line, target, precision, teller(job, "Tensor"))
            job.result.checkpoint, job.result.size = target.name, made.size
            job.done = PARTS
            if out is None and workspace.allows.folders:
                listed = base_models.remember(workspace, base_models.line_from(workspace, str(target), {}))
                notes = (*notes, f"It stands on the list of base models as {listed}.")
            job.result.notes = notes
            job.message = "\n".join(notes)

    doing = "Merging into a checkpoint"
    return start_making(MAKE, doing, work, Made(doing), doing)


@operation(needs="models")
def extract_lora(
    workspace: Workspace,
    tuned: BaseName,
    base: BaseName = "starter",
    rank: Rank = 32,
    conv_rank: ConvRank = None,
    keep: Keep = 1.0,
    text_encoder: Annotated[bool, Field(description="Also of the text encoders, where they differ.")] = True,
    precision: LoraPrecision = "fp16",
    layout: Layout = "kohya",
    name: AdapterTitle = "",
    *,
    lines: tuple[str, str] | None = None,
    out: Path | None = None,
) -> Job:
    """Extract a LoRA from a fully trained checkpoint: its differences to its base, by SVD, in the background.

    lines: tuned and base as the command line names them, instead of names of the list. out: the file to write.
    """
    one, other = lines or (base_models.line_of(workspace, tuned), base_models.line_of(workspace, base))
    workspace.refuse_if_full()

    def work(job: Job) -> None:
        import torch

        from studio.adapters import write_adapter
        from studio.basemodels.card import describe_base
        from studio.basemodels.checkpoint import Checkpoint
        from studio.basemodels.extraction import extract
        from studio.basemodels.weights import weights_hash

        job.message = "Reading the headers"
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        with stopping(job):
            mine, its = Checkpoint(one), Checkpoint(other)
            found = extract(mine, its, rank, conv_rank, keep, text_encoder, dtype, teller(job, "Layer"))
            title = safe_name(name.strip() or f"{mine.choice.short}-lora")
            target = out or free_path(workspace.adapters, f"{title}.safetensors")
            side = describe_base(other).resolution
            metadata = {
                "studio.base": its.choice.short,
                "studio.base_hash": weights_hash(its.place),
                "studio.extracted_from": mine.choice.short,
                "modelspec.resolution": f"{side}x{side}",
            }
            write_adapter(target, found.layers, layout, metadata)
            made, download = job.result, workspace.cache / "downloads" / target.name
            made.notes = extraction_notes(found)
            made.key, made.size, made.download = f"file:{target.name}", target.stat().st_size, download
            atomic_copy(target, download)
            job.done, job.message = PARTS, "\n".join(made.notes)

    doing = "Extracting a LoRA"
    return start_making(MAKE, doing, work, Made(doing), doing)


def extraction_notes(found: Any) -> tuple[str, ...]:
    """The error in all and of the worst layers, and what the LoRA has no place for."""
    ranks = {update.rank for update in found.layers.values()}

    def percent(share: float) -> str:
        return f"{100 * share:.2g} %"

    notes = [
        f"{pluralize(len(found.layers), 'layer')}, rank {min(ranks)} to {max(ranks)}: it lacks {percent(found.error)} "
        "of the change (‖difference − LoRA‖ / ‖difference‖)."
    ]
    worst = sorted(found.errors.items(), key=lambda one: -one[1])[:WORST]
    notes.append("Largest errors: " + ", ".join(f"{path} {percent(error)}" for path, error in worst) + ".")
    if found.same:
        notes.append(f"{pluralize(found.same, 'layer')} alike in both, but perhaps for rounding.")
    if found.left_out:
        share = percent(sum(found.left_out.values()))
        what = pluralize(len(found.left_out), "other tensor")
        notes.append(f"{what} (norms, biases, …) differ and have no place in it: {share} of the whole change's energy.")
    if found.missing:
        notes.append(f"{pluralize(found.missing, 'layer')} left out, because one of the two has no such tensor.")
    return tuple(notes)
