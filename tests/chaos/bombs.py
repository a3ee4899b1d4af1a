"""Bombs: images and files that are small, and ask for much memory or time when they are read.

python -m tests.chaos.bombs [--only PART-OF-A-NAME ...]

Each is opened in a process of its own, as the studio opens what was dropped: it must be read or refused in one
sentence, within 20 s of the processor and 1 GB. Prints a table.
"""

import argparse
import io
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tests.chaos.children import Child, Say
from tests.chaos.extremes import forget_peak, peak, resident
from tests.chaos.starving import little_memory
from tests.datasets.made import chunk

SECONDS, GROWTH, CAP = 20.0, 10**9, 3 * 10**9
SIDE = 9_400  # of the largest square that is opened
FRAMES = 100_000
OPENED = 3  # of the readings of `open_as_image`: the one that decides

# Animated -----------------------------------------------------------------------------------------------------------


def gif() -> bytes:
    one = _saved([Image.new("P", (8, 8))], "GIF")
    at = one.index(b",\0\0\0\0")  # where its only frame begins
    return one[:at] + (b"!\xf9\x04\0\0\0\0\0" + one[at:-1]) * FRAMES + b";"


def apng() -> bytes:
    data = zlib.compress((b"\0" + b"\x40" * 8) * 8)
    frames = []
    for number in range(FRAMES):
        frames.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number + 1, 8, 8, 0, 0, 1, 10, 0, 0)))
        frames.append(chunk(b"fdAT", struct.pack(">I", 2 * number + 2) + data))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)) + chunk(b"acTL", struct.pack(">II", FRAMES, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + b"".join(frames) + chunk(b"IEND", b"")


def webp() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "WEBP", lossless=True)
    image = stream.getvalue()[12:]
    frame = b"\0" * 6 + (7).to_bytes(3, "little") * 2 + (10).to_bytes(3, "little") + b"\0" + image
    frames = (b"ANMF" + struct.pack("<I", len(frame)) + frame) * FRAMES
    head = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (7).to_bytes(3, "little") * 2
    body = b"WEBP" + head + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_pages() -> bytes:
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (278, 3, 1, 8),
            (279, 4, 1, 64)]  # fmt: skip
    size = 2 + 12 * len(tags) + 4
    body = bytearray(b"II*\0" + struct.pack("<I", 72) + b"\x40" * 64)
    for number in range(FRAMES):
        following = 72 + size * (number + 1) if number + 1 < FRAMES else 0
        body += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHLL", *tag) for tag in tags)
        body += struct.pack("<I", following)
    return bytes(body)


def avif_sequence() -> bytes:
    return _saved([Image.new("RGB", (16, 16), (n % 256, 0, 0)) for n in range(500)], "AVIF", speed=10)


def _saved(images: list[Image.Image], form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    images[0].save(stream, form, save_all=len(images) > 1, append_images=images[1:], **options)
    return stream.getvalue()


# Large when they are decoded ----------------------------------------------------------------------------------------


def png_of(mode: str) -> bytes:
    return _saved([Image.new(mode, (SIDE, SIDE))], "PNG", compress_level=1)


def png_deep() -> bytes:
    """16 bits a channel, with alpha."""
    data = zlib.compressobj(1)
    rows = b"".join(data.compress(b"\0" * (1 + 8 * SIDE)) for _ in range(SIDE)) + data.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff_of(mode: str, compression: str = "tiff_adobe_deflate") -> bytes:
    return _saved([Image.new(mode, (SIDE, SIDE))], "TIFF", compression=compression)


def jpeg_large(progressive: bool = False) -> bytes:
    return _saved([Image.new("RGB", (SIDE, SIDE), "teal")], "JPEG", progressive=progressive, quality=50)


def jpeg_scans() -> bytes:
    """A progressive JPEG that is refined 2,000 times by scans of a few bytes."""
    data = _saved([Image.new("L", (SIDE, SIDE))], "JPEG", progressive=True, quality=50)
    at = data.rindex(b"\xff\xda")
    scan = data[at : data.rindex(b"\xff\xd9")]
    return data[:at] + scan * 2000 + b"\xff\xd9"


def avif_large() -> bytes:
    return _saved([Image.new("RGB", (SIDE, SIDE), "teal")], "AVIF", speed=10, quality=10)


def webp_large() -> bytes:
    return _saved([Image.new("RGBA", (SIDE, SIDE), (0, 90, 90, 128))], "WEBP", lossless=True, method=0)


def gif_large() -> bytes:
    return _saved([Image.new("P", (SIDE, SIDE))], "GIF")


def claims(form: str) -> bytes:
    """A small file whose header claims 60,000 x 60,000."""
    data = bytearray(_saved([Image.new("RGB", (16, 16))], form))
    if form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    elif form == "TIFF":
        for tag in (256, 257):
            data = data.replace(struct.pack("<HHLL", tag, 3, 1, 16), struct.pack("<HHLL", tag, 3, 1, 60_000))
    elif form == "AVIF":
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    else:
        data[6:10] = struct.pack("<HH", 60_000, 60_000)  # GIF
    return bytes(data)


# What is said beside the pixels -------------------------------------------------------------------------------------


def tags(count: int, size: int, first: int = 0x9000, big: bool = False) -> bytes:
    """A directory of TIFF whose values all lie at the same place: `size` bytes each."""
    entries = b"".join(struct.pack("<HHLL", (first + n) & 0xFFFF, 7, size, 8) for n in range(count))
    return b"II*\0" + struct.pack("<I", 8 + size) + b"\0" * size + struct.pack("<H", count) + entries + b"\0" * 4


def exif_in(form: str, count: int = 65_000, size: int = 60_000) -> bytes:
    exif = b"Exif\0\0" + tags(count, size)
    if form != "JPEG":
        return _saved([Image.new("RGB", (16, 16))], form, exif=exif)
    data, parts = _saved([Image.new("RGB", (16, 16))], form), []
    for at in range(6, len(exif), 60_000):  # longer than one segment: Pillow puts them together
        part = b"Exif\0\0" + exif[at : at + 60_000]
        parts.append(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part)
    return data[:2] + b"".join(parts) + data[2:]


def exif_of_exif() -> bytes:
    """The same, behind the pointer to the directory of a camera's settings, in an image that has to be turned."""
    inner = tags(65_000, 60_000)[8:]
    entries = struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHLL", 0x8769, 4, 1, 38 + 60_000)
    outer = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + b"\0" * 4
    return _saved([Image.new("RGB", (16, 16))], "WEBP", exif=b"Exif\0\0" + outer + inner)


def exif_circle() -> bytes:
    entry = struct.pack("<HHLL", 0x8769, 4, 1, 8)
    outer = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    return _saved([Image.new("RGB", (16, 16))], "PNG", exif=b"Exif\0\0" + outer)


def tiff_tags() -> bytes:
    return tags(65_000, 2_000_000)


def tiff_claims_tags() -> bytes:
    entries = b"".join(struct.pack("<HHLL", tag, 4, 0xFFFFFFFF, 8) for tag in (273, 279))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + b"\0" * 4


def tiff_strips() -> bytes:
    """An image of 8 x 60,000 whose rows are strips of their own, all at one place."""
    rows = 60_000
    tags = [(256, 3, 1, 8), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, rows, 200),
            (278, 3, 1, 1), (279, 4, rows, 200)]  # fmt: skip
    body = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    body += b"".join(struct.pack("<HHLL", *tag) for tag in tags) + b"\0" * 4
    return body.ljust(200, b"\0") + struct.pack("<I", 8) * rows


def texts(kind: bytes, count: int = 200) -> bytes:
    """A PNG of `count` texts that are 1 GB each when they are unpacked."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(1000)) + packer.flush()
    said = b"a\0\1\0\0\0" + packed if kind == b"iTXt" else b"a\0\0" + packed
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + b"\x40" * 8) * 8))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(kind, said) * count + pixels + chunk(b"IEND", b"")


def many_texts() -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + b"\x40" * 8) * 8))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"tEXt", b"a\0b") * 500_000 + chunk(b"IEND", b"")


# Adapters -----------------------------------------------------------------------------------------------------------


def _tensors(header: dict[str, Any], body: int) -> bytes:
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * body


def adapter_overlapping() -> bytes:
    """20,000 layers whose weights all lie at the same 4 MB."""
    one = {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}
    names = [f"unet.l{n}.lora_{part}.weight" for n in range(9_000) for part in "AB"]
    return _tensors(dict.fromkeys(names, one), 4_000_000)


def adapter_claims() -> bytes:
    header = {}
    for part, shape in (("A", [1, 2**40]), ("B", [2**40, 1])):
        header[f"unet.to_q.lora_{part}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 2**40]}
    return _tensors(header, 64)


def adapter_product() -> bytes:
    """Two small matrices whose product is 40,000 x 40,000."""
    header = {
        "unet.to_q.lora_A.weight": {"dtype": "F16", "shape": [1, 40_000], "data_offsets": [0, 80_000]},
        "unet.to_q.lora_B.weight": {"dtype": "F16", "shape": [40_000, 1], "data_offsets": [80_000, 160_000]},
    }
    return _tensors(header, 160_000)


def adapter_header() -> bytes:
    return struct.pack("<Q", 2**62) + b'{"a": 1}'


def adapter_deep() -> bytes:
    head = b'{"__metadata__": {"a": ' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}}"
    return struct.pack("<Q", len(head)) + head


def adapter_names() -> bytes:
    header: dict[str, Any] = {"x" * 900 + str(n): {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
                              for n in range(8_000)}  # fmt: skip
    return _tensors(header, 32_000)


def adapter_noise() -> bytes:
    """All that is said is right, and all numbers are the largest, or none."""
    chance = random.Random(0)
    body = b"".join(struct.pack("<f", chance.choice((3e38, -3e38, float("nan"), float("inf")))) for _ in range(16))
    header = {
        "unet.to_q.lora_A.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "unet.to_q.lora_B.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]},
    }
    return _tensors(header, 0) + body


IMAGES: dict[str, Callable[[], bytes]] = {
    "GIF of 100,000 frames": gif, "APNG of 100,000 frames": apng, "WebP of 100,000 frames": webp,
    "TIFF of 100,000 pages": tiff_pages, "AVIF of 500 frames": avif_sequence,
    "PNG, 88 MP": lambda: png_of("RGB"), "PNG with alpha, 88 MP": lambda: png_of("RGBA"),
    "PNG of 16 bits, 88 MP": lambda: png_of("I;16"), "PNG of 16 bits with alpha, 88 MP": png_deep,
    "PNG of 1 bit, 88 MP": lambda: png_of("1"), "TIFF, 88 MP": lambda: tiff_of("RGB"),
    "TIFF of floats, 88 MP": lambda: tiff_of("F"), "TIFF with alpha, 88 MP": lambda: tiff_of("RGBA", "tiff_lzw"),
    "CMYK TIFF, 88 MP": lambda: tiff_of("CMYK", "packbits"), "JPEG, 88 MP": jpeg_large,
    "progressive JPEG, 88 MP": lambda: jpeg_large(True), "JPEG of 2,000 scans, 88 MP": jpeg_scans,
    "AVIF, 88 MP": avif_large, "WebP with alpha, 88 MP": webp_large, "GIF, 88 MP": gif_large,
    "JPEG that claims 3,600 MP": lambda: claims("JPEG"), "TIFF that claims 3,600 MP": lambda: claims("TIFF"),
    "AVIF that claims 3,600 MP": lambda: claims("AVIF"), "GIF that claims 3,600 MP": lambda: claims("GIF"),
    "EXIF of a JPEG that overlaps": lambda: exif_in("JPEG"), "EXIF of a PNG that overlaps": lambda: exif_in("PNG"),
    "EXIF of a WebP that overlaps": lambda: exif_in("WEBP"),
    "EXIF in EXIF that overlaps": exif_of_exif, "EXIF in a circle": exif_circle, "TIFF tags that overlap": tiff_tags,
    "TIFF tags of 16 GB": tiff_claims_tags, "TIFF of 60,000 strips": tiff_strips,
    "iTXt of 200 GB": lambda: texts(b"iTXt"), "zTXt of 200 GB": lambda: texts(b"zTXt"),
    "iCCP of 1 GB": lambda: texts(b"iCCP", 1), "500,000 texts": many_texts,
}  # fmt: skip
ADAPTERS: dict[str, Callable[[], bytes]] = {
    "adapter whose weights overlap": adapter_overlapping, "adapter that claims 8 TB": adapter_claims,
    "adapter of a huge product": adapter_product, "adapter with a header of 4 EB": adapter_header,
    "adapter with a deep header": adapter_deep, "adapter of long names": adapter_names,
    "adapter of infinities": adapter_noise,
}  # fmt: skip


def open_as_image(path: Path) -> None:
    """As an import does, then the thumbnail, the facts and the recipe."""
    from studio.datasets import import_images, open_image
    from studio.datasets.analysis import analyze_image
    from studio.datasets.images import format_of, has_alpha, open_alpha, size_of
    from studio.errors import StudioError
    from studio.generation.image_metadata import read_recipe
    from studio.workspace import Workspace

    workspace = Workspace.open(path.parent / "workspace")
    readings: list[Callable[[], Any]] = [
        lambda: format_of(path), lambda: size_of(path), lambda: has_alpha(path), lambda: open_image(path),
        lambda: open_alpha(path), lambda: analyze_image(path), lambda: read_recipe(path),
        lambda: import_images(workspace, "set", [path]),
    ]  # fmt: skip
    said: dict[int, str] = {}
    for number, read in enumerate(readings):
        try:
            read()
        except StudioError as error:
            said[number] = str(error)
    for line in said.values():
        assert "\n" not in line and len(line) < 400, line
    if OPENED in said:
        raise StudioError(said[OPENED])


def open_as_adapter(path: Path) -> None:
    """As a visitor does: dropped, shown in a row, looked into, changed."""
    from studio.errors import StudioError
    from studio.services import adapter_files, adapters, generation
    from studio.workspace import Workspace

    workspace = Workspace.open(path.parent / "workspace")
    key = adapter_files.add_adapter(workspace, path)
    generation.adapter_summary(workspace, f"file:{key}")
    adapters.inspect_adapter(workspace, {"file": key})
    for begin in (adapters.resize_adapter, adapters.convert_adapter):
        job = begin(workspace, {"file": key})
        job.wait()
        if job.error:
            raise StudioError(job.error)


def tried(name: str) -> tuple[bool, str, float, int]:
    """(whether it held, what was said, seconds, bytes over idle)."""
    make, open_it = (IMAGES[name], open_as_image) if name in IMAGES else (ADAPTERS[name], open_as_adapter)

    def work(say: Say) -> None:
        from studio.errors import user_message

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("a.png" if name in IMAGES else "a.safetensors")
            path.write_bytes(make())
            size, idle = path.stat().st_size, resident()
            forget_peak()
            began, said = time.process_time(), "read"
            with little_memory(CAP):
                try:
                    open_it(path)
                except Exception as error:
                    line = user_message(error)
                    said = line if line else f"**{type(error).__name__}: {str(error)[:200]}**"
            say([said, time.process_time() - began, peak() - idle, size])

    ended = Child(work, quiet=True).end(after=600)
    if ended.how != "done":
        return False, f"the process ended: {ended.how}", ended.seconds, 0
    said, seconds, grown, size = ended.said[-1]
    held = seconds <= SECONDS and grown <= GROWTH and not said.startswith("**")
    return held, f"{size / 1e6:.2f} MB | {said}", seconds, grown


def import_everything() -> None:
    """Once, before the children are forked."""
    import torch

    from studio.services import adapter_files, adapters, generation  # noqa: F401

    torch.set_num_threads(1)


def wanted(parts: list[str]) -> Iterator[str]:
    yield from (name for name in (*IMAGES, *ADAPTERS) if not parts or any(part in name for part in parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="parts of the names")
    given = parser.parse_args()
    import_everything()
    broke = 0
    print("| bomb | its size | what was said | seconds | memory over idle |\n| --- | --- | --- | --- | --- |")
    for name in wanted(given.only):
        held, said, seconds, grown = tried(name)
        broke += not held
        print(f"| {name} | {said} | {seconds:.1f} | {grown / 1e6:.0f} MB |{'' if held else ' **broke**'}", flush=True)
    return int(bool(broke))


if __name__ == "__main__":
    sys.exit(main())
