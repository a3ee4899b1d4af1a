"""What lied.py lies to: every way in, with good inputs for each. See there."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, features
from pydantic import TypeAdapter, ValidationError

from studio import adapters as lora
from studio.adapters import AdapterSpec
from studio.captioning import captioner_settings
from studio.datasets import (
    bulk,
    captions,
    import_images,
    open_dataset,
)
from studio.datasets import images as image_files
from studio.errors import DatasetError
from studio.generation import Recipe, contact_sheet, grids, image_metadata, prompts
from studio.schema import explain
from studio.services import generation
from studio.services import grids as grid_services
from studio.services.operations import all_operations
from studio.training import config_from
from studio.workspace import Workspace
from tests.adapters.test_hostile_adapter_files import survive
from tests.chaos.lied import Reader, Tally, typed
from tests.datasets.made import chunk, zipped

RECIPE = {"prompt": "a (red:1.3) fish", "negative_prompt": "blur", "seed": 7, "steps": 5, "guidance": 4.5, "width": 128,
          "height": 128, "scheduler": "Euler", "clip_skip": 2, "adapters": [{"file": "ink", "strength": 0.8,
          "blocks": {"unet.up_blocks": 0.5}, "start": 0.1}], "base": "starter", "source": "a.png"}  # fmt: skip
FACTS = (
    "a (red:1.3) fish, <lora:ink:0.8>\nNegative prompt: blur\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG "
    'scale: 7, Seed: 7, Size: 512x640, Model: x, Clip skip: 2, Lora hashes: "ink: abc", Version: v1.10'
)
SIDES = [{"kind": "strength", "title": "Strength", "labels": ["0", "1"]},
         {"kind": "seed", "title": "Seed", "labels": ["1", "2"]}]  # fmt: skip
AXES = {"axes": [SIDES[0] | {"index": 0, "values": [0, 1]}, SIDES[1] | {"index": 0, "values": [1, 2]}]}


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _table(data: bytes) -> dict[str, Any]:
    """The JSON object of the bytes; one of nothing but them where they are none."""
    try:
        found = json.loads(typed(data))
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {"x": found}


def adapters(root: Path, count: int, seed: int) -> Tally:
    """Damaged adapter files, by the functions that the adapters' own tests use."""
    tally = Tally(inputs=count)
    try:
        tally.refused, grown = survive(root / "in" / "a.safetensors", count, seed)
        if grown > 300_000:
            tally.breaks["memory grew"] += 1
    except Exception as error:
        tally.breaks[f"{type(error).__name__}: {error}"] += 1
    return tally


def readers(root: Path) -> list[Reader]:
    """root/guard/workspace and root/in are written to, and root/guard beside the workspace must not be."""
    from tests.chaos.readers_of_notes import of_bases, of_notes, of_runs

    workspace = Workspace.open(root / "guard" / "workspace")
    (root / "in").mkdir(exist_ok=True)
    save(workspace.datasets / "set" / "a.png", images_of_each_format()[0])
    save(workspace.datasets / "set" / "a.txt", b"red fish, blue_sea, o_o\n")
    return [
        *of_images(workspace, root / "in"),
        *of_what_is_typed(workspace, root / "in"),
        *of_runs(workspace),
        *of_notes(workspace),
        *of_bases(workspace, root / "in"),
    ]


def save(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Images and what travels with them --------------------------------------------------------------------------------


def images_of_each_format() -> list[bytes]:
    grey = Image.radial_gradient("L").resize((24, 18))
    image, exif, found = Image.merge("RGBA", [grey, grey.rotate(90), grey, grey]), Image.Exif(), []
    exif[image_files.ORIENTATION] = 6
    kinds = [("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGBA"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "CMYK")]
    for form, mode in [*kinds, *[("AVIF", "RGB")] * features.check("avif"), ("PNG", "I;16"), ("JPEG", "CMYK")]:
        stream = io.BytesIO()
        made = grey.convert("I").point(lambda v: v * 200).convert(mode) if mode == "I;16" else image.convert("RGB")
        (image if mode == "RGBA" else made if mode == "I;16" else made.convert(mode)).save(
            stream, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {})
        )
        found.append(stream.getvalue())
    return found


def png_saying(texts: dict[str, bytes]) -> bytes:
    """A PNG with text chunks of any bytes."""
    plain = images_of_each_format()[0]
    said = b"".join(chunk(b"iTXt", key.encode() + b"\0\0\0\0\0" + text) for key, text in texts.items())
    return plain[:33] + said + plain[33:]  # behind the header


def of_images(workspace: Workspace, place: Path) -> list[Reader]:
    images, ours, theirs, grid = images_of_each_format(), dump(RECIPE), FACTS.encode(), dump(AXES)

    def read_image(data: bytes):
        path = save(place / "a.png", data)
        seen = image_files.size_of(data), image_files.format_of(data), image_files.has_alpha(path)
        return *seen, image_files.open_image(data, at_least=64).size, image_files.open_alpha(path) and 1

    def source(data: bytes):
        kept = generation.keep_source(workspace, save(place / "b.jpg", data))
        Recipe(prompt="x", source=kept)
        kept.unlink()

    def archive(data: bytes):
        shutil.rmtree(workspace.datasets / "zip", ignore_errors=True)
        dataset, skipped = import_images(workspace, "zip", [save(place / "a.zip", data)])
        return [dataset.file_of(item) for item in dataset.items], skipped, dataset.problems

    def said(data: bytes):
        """Everything that looks into an image."""
        path = save(workspace.outputs / "said.png", data)
        axes = contact_sheet.read_axes(path)
        return axes, generation.restored(workspace, path), grid_services.typed_in(workspace, path)

    def cell(data: bytes):
        contact_sheet.draw_contact_sheet(
            contact_sheet.sides_of([grids.Axis("seed", (1,))]), [save(place / "001.png", data)], (32, 32)
        )

    whole = png_saying({image_metadata.KEY: ours, image_metadata.FOREIGN: theirs, contact_sheet.KEY: grid})
    pair = {"a.png": images[0], "a.txt": b"a fish", "metadata.jsonl": b'{"file_name": "b.jpg", "text": "b"}'}
    return [
        Reader("images", images, read_image, 8),
        Reader("images to begin from, and masks", images, source, 2),
        Reader("zips", [zipped(pair | {"10_x/b.jpg": images[1]}), zipped({"m/c.webp": images[2]})], archive, 3),
        Reader("PNGs with a recipe", [whole, images[0]], said, 2),
        Reader("our recipe in a PNG", [ours], lambda data: said(png_saying({image_metadata.KEY: data})), 4),
        Reader(
            "A1111's parameters in a PNG", [theirs], lambda data: said(png_saying({image_metadata.FOREIGN: data})), 4
        ),
        Reader(
            "a sheet's axes",
            [grid],
            lambda data: said(png_saying({image_metadata.KEY: ours, contact_sheet.KEY: data})),
            4,
        ),
        Reader("a grid's cells", images[:1], cell, 1),
    ]


# What is typed ------------------------------------------------------------------------------------------------------


def of_what_is_typed(workspace: Workspace, place: Path) -> list[Reader]:
    def prompt(data: bytes):
        recipe = generation.compose(workspace, [], prompt=typed(data))
        return recipe, prompts.parse(recipe.prompt), prompts.read_prompt(typed(data))

    def values(data: bytes):
        kind = grids.KINDS[len(data) % len(grids.KINDS)]
        found = grids.parse_values(kind, typed(data))
        return grids.values_text(kind, found), grids.Axis(kind, found).labels

    def blocks(data: bytes):
        use = {"file": place / "a.safetensors", "blocks": generation.parse_blocks(typed(data))}
        return Recipe(prompt="x", adapters=(use,)).adapters[0].scale_for("unet", "up_blocks.0.attentions.0")

    def patterns(data: bytes):
        lines = typed(data).split("\n")
        spec = AdapterSpec(targets=tuple(lines), ranks={lines[0]: 4}, alphas={lines[-1]: 2.0})
        paths = ("down_blocks.0.attn1.to_q", "mid_block.ff.net.0.proj", "")
        return [(spec.wants(path), spec.rank_of(path), spec.alpha_of(path)) for path in paths]

    def search(data: bytes):
        dataset, text = open_dataset(workspace.datasets / "set"), typed(data)
        return [bulk.propose(dataset, bulk.Filter(pattern=text), bulk.replace(text, text, pattern=True))]

    def words(data: bytes):
        """Adapters, axes, filters and settings, as endpoints are given them."""
        text = typed(data)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = {"axes": text}
        found = found if isinstance(found, dict) else {"more": found}
        draw = all_operations()["draw_grid"]
        try:
            wanted = TypeAdapter(bulk.Filter).validate_python(found.pop("filter", {}))
            given = draw.model.model_validate({"axes": [], "prompt": "a fish"} | found)
        except ValidationError as error:
            raise DatasetError(explain(error)) from None
        fields = {name: getattr(given, name) for name in draw.fields}
        axes = [grid_services._typed(one) for one in fields.pop("axes")]
        recipe = generation.composed(workspace, fields)
        return recipe, axes, wanted, grid_services.axes_of(workspace, recipe, axes)

    def captioner(data: bytes):
        captioner_settings("chat", _table(data))

    def run(data: bytes):
        config_from({"data.folder": "x", **_table(data)})

    given = {
        "prompt": "a fish", "width": 128, "scheduler": "Euler", "clip_skip": 2, "base": "starter",
        "filter": {"has": "cat", "words": [1, 4], "captioned": True}, "more": {"denoising": 0.5},
        "axes": [{"kind": "seed", "text": "1-3"}, {"kind": "scheduler", "picks": ["Euler"]}], "adapters": [],
    }  # fmt: skip
    settings = {"adapter.rank": 4, "training.learning_rate": "1e-3", "preview.prompts": ["a"], "data.trigger": "x"}
    table = b'{"file_name": "a.png", "text": "a fish"}\n{"file_name": "sub/b.png", "caption": "b"}\n'
    texts = [b"a (red:1.3) fish, [blurred] BREAK (sea:0.7), \\(x\\)", b"((a)), [b:c] (d:-1) <3, :) \\\\"]
    kinds = [
        b"0, 0.5, 1",
        b"1-4, 7",
        b"0-1 in 5; 2-3 (0.25)",
        b'red \xe2\x86\x92 "green, dark", blue',
        b"a fish\na dog",
    ]
    paths = "\n".join([*lora.PRESETS["attention+feed-forward"], "all", r"attn\d", "to_(q|k)$"]).encode()
    return [
        Reader("prompts", texts, prompt),
        Reader("values of a grid", [*kinds, b"Euler, DDIM"], values),
        Reader("strengths of blocks", [b"up 0.5, down.1 0", b"unet.mid_block=1; text_encoder 0.2"], blocks),
        Reader("patterns of layers", [paths, b"attention\nff"], patterns),
        Reader("patterns of captions", [b"r(e)d .*", rb"\bfish\b", b"[a-z]{2,4}"], search, 0.5),
        Reader("parameters of operations", [dump(given)], words),
        Reader("settings of a captioner", [dump({"prompt": "x", "top_p": 0.5})], captioner),
        Reader("settings of a run", [dump(settings)], run),
        Reader("metadata.jsonl", [table], captions.read_table),
        Reader(
            "metadata.csv", [b'file_name,text\na.png,"a, fish"\n'], lambda d: captions.read_table(d, "metadata.csv")
        ),
        Reader("captions", [b"red fish\n", "рыба".encode("utf-16"), b"caf\xe9"], captions.decode_caption),
    ]
