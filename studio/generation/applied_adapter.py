"""How an adapter is used in an image: which file, how strongly, where and when."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.schema import Number

MAX_STRENGTH = 10.0  # of a strength, either way; people go to 2, and what lies beyond 10 is noise

Strength = Annotated[Number, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]
Share = Annotated[Number, Field(ge=0, le=1)]


class AppliedAdapter(BaseModel):
    """One adapter of a recipe. Strengths multiply: a block's counts on top of that of its component."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Field(description="The adapter's file.")
    strength: Strength = Field(1.0, description="How much of it is added; 0 is the base alone.")
    text_strength: Strength | None = Field(None, description="Strength of its text encoder layers; empty: as the rest.")
    blocks: dict[str, Strength] = Field(
        {},
        max_length=100,
        description="Strength of blocks: unet.up_blocks.1, or unet.up_blocks for all; 1 if not named.",
    )
    start: Share = Field(0.0, description="Share of the steps after which it begins to act.")
    end: Share = Field(1.0, description="Share of the steps after which it no longer acts.")
    live: bool = Field(False, description="The weights of a run in progress, as they are now.")
    hash: str = Field("", max_length=64, pattern=r"^[0-9a-f]*$", description="SHA-256 of the file, to find it again.")

    @property
    def title(self) -> str:
        """The file's name, or the run's when it is a run's result, or RUN@STEP when it is a checkpoint."""
        folder = self.file.parent
        if self.file.stem != "adapter":
            return self.file.stem
        if folder.parent.name == "checkpoints" and folder.name.isdigit():
            return f"{folder.parent.parent.name}@{int(folder.name)}"
        return folder.name

    def scale_for(self, component: str, path: str) -> float:
        """How strongly a layer acts: the component's strength times its block's."""
        strength = self.strength
        if self.text_strength is not None and component.startswith("text_encoder"):
            strength = self.text_strength
        from studio.adapters import block_of  # here, so that recipes are read without torch

        block = block_of(component, path)
        return strength * self.blocks.get(block, self.blocks.get(block.rpartition(".")[0], 1.0))

    def is_active(self, share: float) -> bool:
        """Whether it acts when this share of the steps is done."""
        return self.start <= share < self.end


def _use(value: Any) -> Any:
    """(file, strength) is the short form."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return {"file": value[0], "strength": value[1]}
    return value


AppliedAdapters = tuple[Annotated[AppliedAdapter, BeforeValidator(_use)], ...]
