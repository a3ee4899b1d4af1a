"""A run's losses also as TensorBoard reads them, in tensorboard/ of the run folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from studio import devices
from studio.errors import RunError
from studio.training.events import Event, Step, Validation


@contextmanager
def event_writer(folder: Path) -> Iterator[Callable[[Event], None]]:
    """What is to be called with each event; what it was told is on the disk in the end.

    Raises RunError when TensorBoard is not installed.
    """
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker

    PartialState(cpu=devices.accelerator() is None)  # accelerate's trackers ask it
    try:
        tracker = TensorBoardTracker(folder.name, folder / "tensorboard")
        tracker.start()
    except ImportError as error:
        raise RunError(
            "TensorBoard is not installed: pip install tensorboard, or set training.tensorboard to false."
        ) from error

    def tell(event: Event) -> None:
        match event:
            case Step():
                tracker.log({"loss": event.loss, "rate": event.learning_rate}, step=event.step)
            case Validation():
                tracker.log({"held-out loss": event.loss, "base loss": event.base_loss}, step=event.step)

    try:
        yield tell
    finally:
        tracker.finish()
