"""Files that are being sent: the place of each is kept free meanwhile, and one that is broken off leaves nothing."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync

from studio.errors import ConfigError
from studio.server.permissions import Capabilities
from studio.workspace import size_of

STALL = 30  # seconds without a byte until a sender is given up
SLOW, PATIENCE = 20_000, 120  # bytes a second that are the least, and seconds before that counts
MOST_AT_ONCE = 12  # uploads of one address that are under way, where visitors are strangers
AT_ONE_ADDRESS = 2  # visitors' shares of the folder that one address may fill


def usual_folder() -> str:
    """Where uploads wait unless GRADIO_TEMP_DIR names another folder: Gradio's own is that of all users."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""  # on Windows the temporary folder is the user's own
    return os.path.join(tempfile.gettempdir(), f"lora-studio{user}")


def make_private(folder: str) -> None:
    """Make the folder of uploads, for this user alone. Raises ConfigError where it, or a link to it, is another's."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        state = os.stat(folder)
        owners = {state.st_uid, os.lstat(folder).st_uid}
        foreign = hasattr(os, "getuid") and owners != {os.getuid()}
    except OSError as error:
        raise ConfigError(f"Uploads can't wait in {folder}: {error.strerror}.") from error
    if foreign:
        raise ConfigError(f"Uploads can't wait in {folder}, which is another user's: name one in GRADIO_TEMP_DIR.")
    if hasattr(os, "getuid") and state.st_mode & 0o022:  # others could put files in the place of uploads
        os.chmod(folder, 0o700)


@dataclass(eq=False)
class Sending:
    """One upload under way."""

    visitor: str
    address: str
    length: int
    received: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        return max(0, self.length - self.received)


class Uploads:
    """The folder of uploads. who: what was sent, as the visitors and the address that sent each file."""

    def __init__(self, folder: Path, allows: Capabilities):
        self.folder, self.allows = folder, allows
        self.who: dict[str, tuple[set[str], set[str]]] = {}
        self._under_way: set[Sending] = set()
        self._one_by_one = asyncio.Lock()

    async def begin(self, visitor: str, address: str, length: int) -> Sending | tuple[int, str]:
        """The upload, whose place is kept free until `end`; or the status and the sentence that refuse it."""
        sending = Sending(visitor, address, length)
        others = [one for one in self._under_way if one.address == address]
        if self.allows.room and len(others) >= MOST_AT_ONCE:
            return 429, "Too many files are being sent at once: wait until some of them are here."
        async with self._one_by_one:  # else two that come together would refuse each other
            refused = await run_sync(self._refuse, sending)
            if refused:
                return 413, refused
            self._under_way.add(sending)
        return sending

    def end(self, sending: Sending) -> None:
        self._under_way.discard(sending)

    def remember(self, sending: Sending, paths: Iterable[str]) -> None:
        """Who sent the files that Gradio has just stored."""
        if len(self.who) > 10_000:
            self.who = {path: who for path, who in self.who.items() if os.path.exists(path)}
        for path in paths:
            visitors, addresses = self.who.setdefault(os.path.realpath(path), (set(), set()))
            visitors.add(sending.visitor)
            addresses.add(sending.address)

    def is_from(self, path: str, visitor: str) -> bool:
        return visitor in self.who.get(path, ((), ()))[0]

    def _refuse(self, sending: Sending) -> str:
        coming = [*self._under_way, sending]
        if size_of(self.folder) + sum(one.left for one in coming) > self.allows.uploads:
            return "The studio's upload folder is full: what was sent before goes in some hours, so try then."
        share = self.allows.room
        if share is None:
            return ""
        mine, here = 0, 0
        for path, (visitors, addresses) in list(self.who.items()):
            if sending.visitor in visitors or sending.address in addresses:
                with suppress(OSError):
                    size = os.path.getsize(path)
                    mine += size * (sending.visitor in visitors)
                    here += size * (sending.address in addresses)
        mine += sum(one.length for one in coming if one.visitor == sending.visitor)
        here += sum(one.length for one in coming if one.address == sending.address)
        if (sending.visitor and mine > share) or here > AT_ONE_ADDRESS * share:
            return "You have sent as much as may wait here: what was sent before goes in some hours, so try then."
        return ""

    def counted(self, sending: Sending, receive: Callable[..., Any]) -> Callable[..., Any]:
        """`receive`, which ends as if the sender had disconnected when it stalls or is too slow."""

        async def counting() -> Any:
            if not sending.left:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), STALL)
            except TimeoutError:
                return {"type": "http.disconnect"}
            sending.received += len(message.get("body", b""))
            seconds = time.monotonic() - sending.began - PATIENCE
            if message.get("more_body") and seconds > 0 and sending.received < SLOW * seconds:
                return {"type": "http.disconnect"}
            return message

        return counting


def leave_nothing(parser: type) -> type:
    """Gradio's reader of uploads, which also deletes what it had stored of one that is broken off."""

    class Reader(parser):  # type: ignore[misc, valid-type]
        async def parse(self) -> Any:
            try:
                return await super().parse()
            except BaseException:
                for file in self._files_to_close_on_error:
                    with suppress(OSError):
                        file.close()
                    Path(file.name).unlink(missing_ok=True)
                raise

    return Reader
