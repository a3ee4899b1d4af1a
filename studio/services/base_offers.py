"""A base model for an adapter that does not fit the chosen one: on the list, on this machine, or to be fetched."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.hub import is_hub_id
from studio.services import base_models
from studio.services.adapter_files import adapter_path
from studio.workspace import Workspace

MOST = 8  # bases of the list that are compared with the file, the newest first
USE, ADD, FETCH = "use", "add", "fetch"


@dataclass(frozen=True)
class BaseOffer:
    """What can be done with one click. kind: USE a base of the list, ADD one of this machine to it, or FETCH it.

    place: its name on the list, or as the Hub names it
    """

    kind: str
    place: str

    @property
    def text(self) -> str:
        return f"Fetch {self.place}" if self.kind == FETCH else f"Use {self.place}"


def base_offer(workspace: Workspace, key: str, base: str) -> BaseOffer | None:
    """For the adapter of this key, which the base of this name does not fit; None where nothing is known to fit.

    Raises StudioError when there is no such adapter.
    """
    from studio.basemodels.usual import USUAL
    from studio.generation.adapter_info import read_adapter_info

    path = adapter_path(workspace, key)
    info = read_adapter_info(path)
    own = base_models.name_of(workspace, info.base) if info.base else ""
    if own and own != base:
        return BaseOffer(USE, own)
    for _, name in base_models.base_choices(workspace)[:MOST]:
        if name != base and _fits(workspace, path, name):
            return BaseOffer(USE, name)
    allows = workspace.allows
    line = info.base if is_hub_id(info.base) else USUAL.get(info.family, "")
    if not line or not (allows.models and allows.folders) or base_models.name_of(workspace, line) == base:
        return None
    return BaseOffer(FETCH if base_models.can_be_fetched(line) else ADD, line)


def take(workspace: Workspace, offer: BaseOffer) -> str:
    """Do it: the name of the base to draw with; "" for one that is fetched now. Raises StudioError."""
    if offer.kind == FETCH:
        base_models.start_download(workspace, offer.place)
        return ""
    return offer.place if offer.kind == USE else base_models.remember(workspace, offer.place)


def _fits(workspace: Workspace, path: Path, name: str) -> bool:
    """Whether any layer of the file finds its place in this base: read from settings and headers alone."""
    from studio.basemodels.skeleton import skeleton
    from studio.generation.adapter_info import read_adapter_info

    with suppress(StudioError):
        return bool(read_adapter_info(path, skeleton(base_models.line_of(workspace, name))).matched)
    return False
