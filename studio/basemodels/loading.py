"""Loading a base, and sharing the one copy of it that is in memory."""

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from studio import devices
from studio.basemodels.choice import BaseChoice
from studio.basemodels.registry import base_folder, family_class
from studio.building import building

if TYPE_CHECKING:
    from studio.basemodels.family import Family

# The bases in memory that are shared, as long as someone uses them, and the one that was used last in any case.
_shared: "WeakValueDictionary[tuple[str, str], Family]" = WeakValueDictionary()
_last: "list[Family]" = []


def load_base(name: str = "starter", shared: bool = True, precision: str | None = None) -> "Family":
    """Load the base that a line names, as `choice.BaseChoice` has it. Raises BaseModelError.

    shared: callers that ask for the same base in the same precision get the same copy. precision: "fp32", "bf16"
    or "fp16"; None is the usual one of the machine (see `devices.default_precision`).
    """
    choice = BaseChoice.of(name)
    folder = base_folder(name)
    kind = family_class(folder, choice.family)
    precision = precision or devices.default_precision()
    with building:
        if not shared:
            return kind(folder, precision, choice=choice)
        base = _shared.get((str(choice), precision))
        if base is None:
            _last.clear()  # before the next one takes memory
            base = _shared[str(choice), precision] = kind(folder, precision, choice=choice)
        _last[:] = [base]
        return base
