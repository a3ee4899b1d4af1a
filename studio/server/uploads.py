"""Files that are being sent: the place of each is kept free meanwhile, and one that is broken off leaves nothing."""

import asyncio
import math
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
from studio.server.lately import Lately
from studio.server.permissions import Capabilities
from studio.workspace import size_of

STALL = 30  # seconds without a byte until a sender is given up
SLOW, PATIENCE = 20_000, 120  # bytes a second that are the least, and seconds before that counts
MOST_AT_ONCE = 12  # uploads of one address that are under way, where visitors are strangers
MOST_BROKEN, HALF = 30, 60  # uploads of one address that were broken off lately; half is forgotten after so many s
LOOK = 2  # seconds between two looks at what lies in the folder
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
    seen: int = 0  # bytes of it that lay in the folder at the last look
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        return max(0, self.length - self.received)


@dataclass
class Sent:
    """One stored file."""

    size: int
    visitors: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)


class Uploads:
    """The folder of uploads. sent: its files, by their path, with the visitors and the addresses that sent each."""

    def __init__(self, folder: Path, allows: Capabilities):
        self.folder, self.allows = folder, allows
        self.sent: dict[str, Sent] = {}
        self._under_way: set[Sending] = set()
        self._looking = asyncio.Lock()
        self._looked, self._lies = -math.inf, 0  # when, and how many bytes lay there, with those stored since
        self._broken = Lately(HALF)

    async def begin(self, visitor: str, address: str, length: int) -> Sending | tuple[int, str]:
        """The upload, whose place is kept free until `end`; or the status and the sentence that refuse it."""
        sending = Sending(visitor, address, length)
        others = [one for one in self._under_way if one.address == address]
        if self.allows.room and len(others) >= MOST_AT_ONCE:
            return 429, "Too many files are being sent at once: wait until some of them are here."
        if self.allows.room and self._broken.of(address) >= MOST_BROKEN:
            return 429, "Too many files were broken off: try again in a minute."
        async with self._looking:
            if time.monotonic() - self._looked > LOOK:
                await self._look()
        refused = self._refuse(sending)
        if refused:
            return 413, refused
        self._under_way.add(sending)
        return sending

    def end(self, sending: Sending) -> None:
        self._under_way.discard(sending)
        if sending.left:
            self._broken.add(sending.address, 1)

    def remember(self, sending: Sending, paths: Iterable[str]) -> None:
        """Who sent the files that Gradio has just stored."""
        self._lies += sending.length - sending.seen
        for path in paths:
            with suppress(OSError):
                sent = self.sent.setdefault(os.path.realpath(path), Sent(os.path.getsize(path)))
                sent.visitors.add(sending.visitor)
                sent.addresses.add(sending.address)

    def is_from(self, path: str, visitor: str) -> bool:
        return path in self.sent and visitor in self.sent[path].visitors

    async def _look(self) -> None:
        """See what lies in the folder; what went meanwhile counts for no visitor any more."""
        before = {one: one.received for one in self._under_way}
        known, lay = list(self.sent), self._lies
        size, gone = await run_sync(lambda: (size_of(self.folder), [one for one in known if not os.path.exists(one)]))
        for path in gone:
            self.sent.pop(path, None)
        for one, received in before.items():
            one.seen = received
        self._lies, self._looked = size + self._lies - lay, time.monotonic()

    def _refuse(self, sending: Sending) -> str:
        coming = [*self._under_way, sending]
        if self._lies + sum(one.length - one.seen for one in coming) > self.allows.uploads:
            return "The studio's upload folder is full: what was sent before goes in some hours, so try then."
        share = self.allows.room
        if share is None:
            return ""
        mine = sum(one.size for one in self.sent.values() if sending.visitor in one.visitors)
        here = sum(one.size for one in self.sent.values() if sending.address in one.addresses)
        mine += sum(one.length for one in coming if one.visitor == sending.visitor)
        here += sum(one.length for one in coming if one.address == sending.address)
        if (sending.visitor and mine > share) or here > AT_ONE_ADDRESS * share:
            return "You have sent as much as may wait here: what was sent before goes in some hours, so try then."
        return ""

    def counted(self, sending: Sending, receive: Callable[..., Any]) -> Callable[..., Any]:
        """`receive`, which ends as if the sender had disconnected when it stalls or is too slow.

        Where visitors are strangers, all uploads together take at most half of the event loop's time.
        """
        came = time.monotonic()

        async def counting() -> Any:
            nonlocal came
            if not sending.left:
                return await receive()
            if self.allows.room:
                await asyncio.sleep(min(1, (time.monotonic() - came) * len(self._under_way)))
            try:
                message = await asyncio.wait_for(receive(), STALL)
            except TimeoutError:
                return {"type": "http.disconnect"}
            came = time.monotonic()
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
