"""Other files out of adapter files: another layout, a smaller rank, several as one. What is left out is counted.

The functions here are what page, endpoints and command line call; `reshape` holds the arithmetic.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from studio.adapters import reshape
from studio.adapters.attach import place_layers
from studio.adapters.files import AdapterFile
from studio.adapters.report import left_out
from studio.adapters.update import Update
from studio.adapters.writing import LAYOUTS, write_adapter
from studio.errors import AdapterError
from studio.text import pluralize

Layers = dict[tuple[str, str], Update]
Progress = Callable[[int, int], None]  # layers done, of how many; may raise to stop
# Metadata that would be wrong of a changed copy: its rank, layout, title and hashes.
_STALE = ("format", "ss_network_", "sshs_", "modelspec.hash", "lora_adapter_metadata", "modelspec.title")


@dataclass(frozen=True)
class Rewritten:
    """A file that is ready to be written.

    notes  sentences for a person: what was done, and each thing that the new file lacks
    error  ‖new − old‖ / ‖old‖ of the whole update
    """

    layers: Layers
    layout: str
    metadata: Mapping[str, str]
    notes: tuple[str, ...]
    error: float = 0.0
    embeddings: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def write(self, path: str | Path) -> None:
        """As `write_adapter`. Raises AdapterError."""
        write_adapter(path, self.layers, self.layout, self.metadata, self.embeddings)


def convert_file(file: AdapterFile, modules: Mapping[str, nn.Module], layout: str) -> Rewritten:
    """The file by the names of another layout. modules: of its base model, whose layers say where the dots were.

    Raises AdapterError where it holds NaN or was made for another base model.
    """
    if layout not in LAYOUTS:
        raise AdapterError(f"The layout {str(layout)[:40]!r} is unknown: use {' or '.join(LAYOUTS)}.")
    file.refuse_if_damaged()
    layers, unused = place_layers(file, dict(modules))
    if not layers:
        raise AdapterError(f"{file.name} was made for another base model, which is needed to name its layers.")
    done = f"{pluralize(len(layers), 'layer')}, by the names of the {layout} layout."
    return _rewritten(layers, layout, [file], [done], unused=unused, metadata=kept_metadata(file.metadata))


def resize_file(file: AdapterFile, rank: int, progress: Progress | None = None) -> Rewritten:
    """The file at a smaller rank. Raises AdapterError as `reshape.resize`, and where it holds NaN."""
    file.refuse_if_damaged()
    layers, error = reshape.resize(_Watched(file.layers, progress), rank)
    done = (
        f"Rank {max(file.ranks)} → {rank}: {100 * (1 - error**2):.2f} % of its energy is kept "
        f"(the update changed by {100 * error:.2f} %, ‖old − new‖ / ‖old‖)."
    )
    return _rewritten(layers, file.layout, [file], [done], error, metadata=kept_metadata(file.metadata))


def merge_files(files: Sequence[tuple[AdapterFile, float]], rank: int | None = None) -> Rewritten:
    """One file that at strength 1 does what these do together at their strengths; cut to `rank` where it is given.

    Raises AdapterError where the files name the same layers differently, where one holds NaN, and as `reshape.merge`.
    """
    for file, _ in files:
        file.refuse_if_damaged()
    if len({file.layout for file, _ in files}) > 1:
        raise AdapterError("The adapters are in different layouts: convert one of them first.")
    aligned = one_name_each([file for file, _ in files])
    layers, error = reshape.merge([(part, strength) for part, (_, strength) in zip(aligned, files)], rank)
    done = [f"{pluralize(len(layers), 'layer')} of {len(files)} adapters."]
    if rank:
        done.append(f"Cutting to rank {rank} changed the sum by {100 * error:.2f} %.")
    source = {"modelspec.merged_from": ", ".join(f"{file.name}:{strength:g}" for file, strength in files)}
    return _rewritten(layers, files[0][0].layout, [file for file, _ in files], done, error, metadata=source)


def kept_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a changed copy may still say of itself: where it comes from, not its old rank, layout or hash."""
    return {key: value for key, value in metadata.items() if not key.startswith(_STALE)}


def one_name_each(files: Sequence[AdapterFile]) -> list[Layers]:
    """The layers of each file, a layer of the base having one name in all of them.

    Names that differ by their prefix or flattening alone become one. Raises AdapterError where files use two programs'
    names of the same model, since which layers are the same is then not to be seen without the model.
    """
    _refuse_two_schemes(files)
    chosen: dict[tuple[str, str], tuple[str, str]] = {}
    for file in files:
        for place in file.layers:
            known = chosen.setdefault(_identity(place), place)
            if not known[0] and place[0]:  # a component's name is better than none
                chosen[_identity(place)] = place
    out: list[Layers] = []
    for file in files:
        out.append({chosen[_identity(place)]: update for place, update in file.layers.items()})
        if len(out[-1]) < len(file.layers):
            raise AdapterError(f"{file.name} holds a layer under two names: use an earlier copy.")
    return out


def _identity(place: tuple[str, str]) -> tuple[str, str]:
    component, key = place
    part = "" if component in ("unet", "transformer") else component
    return part, key.replace(".", "_").removeprefix("text_model_")


# Two programs' names of the same layers: (what the first call them, what diffusers calls them), flattened.
_SCHEMES = (
    (r"(?:input_blocks|middle_block|output_blocks|label_emb)_", r"(?:down_blocks|mid_block|up_blocks|add_embedding)_"),
    (r"(?:double_blocks|single_blocks|joint_blocks)_", r"(?:single_)?transformer_blocks_"),
    (r".*_attention_(?:qkv|out)$", r".*_attention_to_(?:q|k|v|out_0)$"),
    (r"blocks_\d+_(?:self|cross)_attn_", r"(?:transformer_)?blocks_\d+_attn[12]_"),
)


def _refuse_two_schemes(files: Sequence[AdapterFile]) -> None:
    keys = [[_identity(place)[1] for place in file.layers] for file in files]
    for original, today in _SCHEMES:
        first = [next((key for key in mine if re.match(original, key)), "") for mine in keys]
        second = [next((key for key in mine if re.match(today, key)), "") for mine in keys]
        for n, mine in enumerate(first):
            for m, yours in enumerate(second):
                if n != m and mine and yours:
                    raise AdapterError(
                        f"{files[n].name} and {files[m].name} name the same layers differently ({mine}, {yours}): "
                        "convert them to one layout on their base model first."
                    )


def _rewritten(
    layers: Layers,
    layout: str,
    files: Sequence[AdapterFile],
    done: Sequence[str],
    error: float = 0.0,
    *,
    unused: Sequence[tuple[str, str]] = (),
    metadata: Mapping[str, str],
) -> Rewritten:
    notes, embeddings = list(done), dict[str, Mapping[str, Tensor]]()
    for file in files:
        name = f"{file.name}: " if len(files) > 1 else ""
        keeps = layout == "kohya"
        for token, parts in file.embeddings.items() if keeps else ():
            if token in embeddings and not _same(embeddings[token], parts):
                notes.append(f"{name}left out is its bundled embedding {token}: another file has one of that name.")
            else:
                embeddings[token] = parts
        lost = replace(file, embeddings={}) if keeps else file
        notes += [f"{name}{line}" for line in left_out(lost, unused)]
    return Rewritten(layers, layout, metadata, tuple(notes), error, embeddings)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[part].equal(other[part]) for part in one)


class _Watched(Mapping[tuple[str, str], Update]):
    """Layers that report how far one has gone through them."""

    def __init__(self, layers: Mapping[tuple[str, str], Update], progress: Progress | None):
        self._layers, self._progress = layers, progress

    def __getitem__(self, place: tuple[str, str]) -> Update:
        return self._layers[place]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for done, place in enumerate(self._layers):
            if self._progress:
                self._progress(done, len(self._layers))
            yield place
