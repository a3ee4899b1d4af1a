"""Where an adapter acts, as a table: the base's blocks in the order it works through them, by kinds of layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from torch import nn

from studio.adapters.insight import block_of
from studio.adapters.layers import can_train
from studio.adapters.names import COMPONENTS

# (kind of layer, pattern of its path); the first that fits counts. Flattened names have "_" for ".".
_SELF, _CROSS = r"(?:attn1|attn|self_attn|attention)[._](?:to_)?", r"(?:attn2[._]to_|add_)"
_KINDS = (
    *((f"self-attention {letter}", rf"{_SELF}{letter}(?:_proj)?$") for letter in "qkv"),
    ("self-attention out", rf"{_SELF}(?:out|o)(?:_proj|[._]0)?$"),
    *((f"cross-attention {letter}", rf"{_CROSS}{letter}(?:_proj)?$") for letter in "qkv"),
    ("cross-attention out", r"attn2[._]to_out(?:[._]0)?$|to_add_out$"),
    ("time", r"time|adaLN|modulation|norm\w*[._]linear|emb_layers|add_embedding|_mod[._]"),
    ("feed-forward", r"[._](?:ff|ff_context|mlp|feed_forward)[._]|proj_mlp|[._]fc[12]$|linear[12]$"),
    ("projection", r"proj_(?:in|out)$"),
    ("conv", r"conv|in_layers|out_layers|skip_connection|[._]op$"),
    ("norm", r"norm"),
)
KINDS = (*(name for name, _ in _KINDS), "other")
_BEFORE, _AFTER = ("conv_in", "time", "add_emb", "down_blocks"), ("up_blocks", "conv_norm_out", "conv_out")


@dataclass
class Cell:
    """The layers of one kind in one block.

    total    how many the base has; applied: how many of them the file changes
    unused   layers of the file that belong here by their name and have no place
    delta_energy, weight_energy  sums of squares of the change at strength 1, and of the weights that it changes
    """

    total: int = 0
    applied: int = 0
    unused: int = 0
    delta_energy: float = 0.0
    weight_energy: float = 0.0

    @property
    def share(self) -> float:
        """‖delta‖ / ‖W‖ over the layers that are changed."""
        return (self.delta_energy / self.weight_energy) ** 0.5 if self.weight_energy else 0.0


@dataclass(frozen=True)
class BlockMap:
    """cells: by (block, kind). Blocks are named as `insight.block_of` names them."""

    blocks: tuple[str, ...]
    kinds: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]

    def of_block(self, block: str) -> Cell:
        """All its kinds together."""
        return _sum([cell for (name, _), cell in self.cells.items() if name == block])

    def of_component(self, component: str) -> Cell:
        """All its blocks together."""
        return _sum([cell for (name, _), cell in self.cells.items() if component_of(name) == component])

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(component_of, self.blocks)))


def block_map(
    modules: Mapping[str, nn.Module], norms: Mapping[tuple[str, str], tuple[float, float]], unused: Sequence[str]
) -> BlockMap:
    """norms: of each layer that the file changes, (‖delta‖², ‖W‖²). unused: the file's layers that have no place."""
    cells: dict[tuple[str, str], Cell] = {}
    for component, module in modules.items():
        for path, layer in module.named_modules():
            place = (component, path)
            if not path or not (can_train(layer) or place in norms):
                continue
            cell = cells.setdefault((block_of(component, path), kind_of(path)), Cell())
            cell.total += 1
            if place in norms:
                delta_energy, weight_energy = norms[place]
                cell.applied += 1
                cell.delta_energy += delta_energy
                cell.weight_energy += weight_energy
    for key in unused:
        cells.setdefault((_block_by_name(key), kind_of(key)), Cell()).unused += 1
    blocks = dict.fromkeys(block for block, _ in cells)
    kinds = {kind for _, kind in cells}
    order = [*modules, *COMPONENTS]
    ordered = sorted(blocks, key=lambda name: (_place(component_of(name), order), _turn(name)))
    return BlockMap(tuple(ordered), tuple(kind for kind in KINDS if kind in kinds), cells)


def kind_of(path: str) -> str:
    """Which of KINDS a layer is, by its dotted or flattened path."""
    return next((name for name, pattern in _KINDS if re.search(pattern, path)), "other")


def component_of(block: str) -> str:
    head = block.partition(".")[0]
    return head if head in COMPONENTS else ""


def _turn(block: str) -> tuple[int, int]:
    """Sort key: the order in which a UNet runs its blocks; other models register theirs in that order."""
    rest = block.removeprefix(component_of(block)).lstrip(".")
    number = int(rest.rpartition(".")[2]) if rest.rpartition(".")[2].isdigit() else 0
    for turn, name in enumerate((*_BEFORE, "mid_block", *_AFTER)):
        if rest.startswith(name):
            return turn, number
    return len(_BEFORE), 0


def _block_by_name(key: str) -> str:
    """The block of a layer that the base does not have, from its name."""
    head, _, rest = key.partition(".")
    component = head if head in COMPONENTS else ""
    rest = (rest if component else key).removeprefix("text_model.").removeprefix("text_model_")
    found = re.match(r"(.*?[a-z])[._](\d+)(?=[._]|$)", rest)
    return block_of(component, f"{found[1]}.{found[2]}" if found else rest)


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _sum(cells: Sequence[Cell]) -> Cell:
    return Cell(*map(sum, zip(*map(astuple, cells)))) if cells else Cell()
