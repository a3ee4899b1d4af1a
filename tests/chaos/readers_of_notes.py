"""What lied.py lies to besides readers.py: runs, notes of datasets and of the workspace, base models."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensors_as_bytes

from studio import adapters as lora
from studio.basemodels import base_folder, family_class
from studio.basemodels.card import describe_base
from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import missing_parts
from studio.basemodels.skeleton import skeleton
from studio.datasets import (
    authors,
    history,
    open_dataset,
    removed_images,
    undo,
)
from studio.generation import contact_sheet, votes
from studio.services import adapter_library, base_models, evaluation, gallery, grids, run_library
from studio.services.run_order import enqueue, waiting
from studio.training import config_from, config_from_toml, config_to_toml, read_events, summary
from studio.training.difficulty import hardest
from studio.training.reading import Log, skim_run_folder
from studio.training.run_notes import note_of
from studio.training.setting_groups import LABELS
from studio.training.trash import list_trash
from studio.web.components import loss_chart
from studio.web.train import run_html
from studio.workspace import ASSETS, Workspace
from tests.adapters.test_hostile_adapter_files import raw
from tests.chaos.lied import Reader, typed
from tests.chaos.readers import SIDES, dump, images_of_each_format, save

EVENTS = [
    '{"event": "Preparing", "step": 0, "done": 3, "total": 9}',
    '{"event": "Started", "step": 0, "steps": 40, "process": 1, "process_started": 0.5, "parameters": "1", '
    '"setup": "x"}',
    '{"event": "Step", "step": 1, "loss": 0.5, "smoothed": 0.5, "learning_rate": 0.001, "steps_per_second": 6.5, '
    '"seconds_left": 9.5, "gradient_norm": 0.1, "memory": 1.5, "text_encoder_lr": 0.0}',
    '{"event": "Validation", "step": 2, "loss": 0.4, "base_loss": 0.5, "spread": 0.01, "bands": [0.1, 0.2, 0.3, 0.4], '
    '"base_bands": [0.2, 0.3, 0.4, 0.5], "verdict": "learning"}',
    '{"event": "Preview", "step": 2, "prompt": "a fish", "file": "previews/000002-0.png"}',
    '{"event": "Checkpoint", "step": 2, "folder": "checkpoints/000002"}',
    '{"event": "RolledBack", "step": 1, "message": "back"}',
    '{"event": "Warned", "step": 2, "message": "careful"}',
    '{"event": "ExportChecked", "step": 2, "difference": 0.1, "unused": 0, "message": "it draws"}',
    '{"event": "Finished", "step": 2, "kept": 2, "message": "done"}',
    '{"event": "Stopped", "step": 2, "message": "stopped"}',
    '{"event": "Failed", "step": 2, "message": "failed"}',
]
UNET = "model.diffusion_model."
CHECKPOINTS: list[dict[str, list[int]]] = [
    {f"{UNET}input_blocks.0.0.weight": [8, 4, 1, 1], f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight":
     [1, width], "first_stage_model.decoder.conv_in.weight": [4, 4], "v_pred": [1]} for width in (768, 1024, 2048)
] + [
    {f"{UNET}joint_blocks.{n}.x_block.attn.qkv.weight": [1, 1] for n in range(3)},
    {"double_blocks.0.img_attn.qkv.weight": [1, 1], "guidance_in.in_layer.weight": [1, 1]},
]  # fmt: skip


# Runs ---------------------------------------------------------------------------------------------------------------


def of_runs(workspace: Workspace) -> list[Reader]:
    toml = config_to_toml(config_from({"data.folder": "x", "name": "y", "preview.prompts": ["a", "b @0.5"]})).encode()
    folder = workspace.runs / "run"
    save(folder / "run.toml", toml)
    save(folder / "previews" / "000002-0.png", images_of_each_format()[0])

    def settings_of(data: bytes):
        config = config_from_toml(save(workspace.runs / "other" / "settings.toml", data))
        return config, config_to_toml(config)

    def events(data: bytes):
        save(folder / "events.jsonl", data)
        view, _ = Log(folder).poll(), (read_events(folder), skim_run_folder(folder))
        page = [run_html.run_card(view, LABELS), run_html.run_status(view), run_html.warnings_list(view.warnings)]
        page += [loss_chart.loss_chart(view.losses, view.validations, view.steps), str(view.export_check)]
        short, course = summary.summary(workspace, "run"), summary.course(workspace, "run")
        frames_of = run_library.timeline(workspace, "run", course)
        assert all(path.is_relative_to(workspace.cache) for _, frames in frames_of for _, path in frames)
        return page, short, loss_chart.compare_chart([("run", course)]), view.previews, frames_of

    def kept(data: bytes):
        events(EVENTS[2].encode() + b"\n")
        summary._seen.clear()
        file = summary._file(workspace, "run")
        first = json.dumps([summary.VERSION, *summary._stamp(workspace, "run")]).encode()
        save(file, first + b"\n" + data)
        return [summary.summary(workspace, "run"), summary.course(workspace, "run")], file.unlink()

    def lined_up(data: bytes):
        save(workspace.root / "queue.json", data)
        found = waiting(workspace)
        enqueue(workspace, "run")
        return found, waiting(workspace)

    def noted(data: bytes):
        save(folder / "note.txt", data)
        return note_of(workspace, "run"), list_trash(workspace)

    def hard(data: bytes):
        return hardest(save(folder / "images.json", data).parent)

    log = "\n".join(EVENTS).encode()
    short = ["run", "finished", "starter", "x", 1, 4, 0.5, 0.6, "learning", 1.5, "previews/000002-0.png", 9]
    line = {"trained": [[1, 0.5]], "held_out": [[1, 0.4]], "base": [[1, 0.5]], "previews": [[1, "a", "previews/a.png"]]}
    names = list(summary.Summary.__dataclass_fields__)
    return [
        Reader("run.toml", [toml], settings_of),
        Reader("events.jsonl", [log, "\n".join(EVENTS[1:5] * 3).encode(), log[:700]], events, 6),
        Reader("what is kept of a run", [dump(dict(zip(names, short))) + b"\n" + dump(line)], kept, 1),
        Reader("the queue", [dump({"runs": ["run", "gone"]})], lined_up, 0.5),
        Reader("notes", [b"the good one \xe2\x9c\x93"], noted, 1),
        Reader("hardest images", [dump({"a.png": [3, 1.5]})], hard, 1),
    ]  # fmt: skip


# Notes of datasets and of the workspace -----------------------------------------------------------------------------


def of_notes(workspace: Workspace) -> list[Reader]:
    change = {"id": 1, "time": "2026-01-01T00:00:00+00:00", "label": "Edit", "author": "person", "kind": "change",
              "captions": {"a.png": ["a", "b"]}, "moved": {"x.png": [["x.png", ".studio/removed/1/x.png"]]},
              "gains": {"a.png": {"b": "model:x"}}, "losses": {}, "batch": ""}  # fmt: skip
    row = [1, 1, 24, 18, "0" * 32, "0" * 16, "0" * 96, 1.5]

    def past(name: str) -> Callable[[bytes], Any]:
        def read(data: bytes):
            folder = workspace.datasets / "noted"
            shutil.rmtree(folder, ignore_errors=True)
            save(folder / "a.png", images_of_each_format()[0])
            save(folder / "a.txt", b"b\n")
            save(folder / ".studio" / name, data)
            dataset = open_dataset(folder)
            seen = [dataset.problems, history(dataset), authors(dataset, "a.png"), removed_images(dataset)]
            return seen, undo(dataset).left if name == "history.jsonl" else dataset.items[0].size

        return read

    def voted(data: bytes):
        grid = contact_sheet.read_grid(save(workspace.outputs / "grids" / "g" / "grid.json", dump(facts)).parent)
        save(grid.folder / votes.FILE, data)
        return votes.votes(grid), votes.tally(grid)

    def sheet(data: bytes):
        grid = contact_sheet.read_grid(save(workspace.outputs / "grids" / "h" / "grid.json", data).parent)
        return grid, grids.newest(workspace), grid and [contact_sheet.position(grid.sides, n) for n in grid.problems]

    def bases(data: bytes):
        save(workspace.root / "bases.json", data)
        names = [name for _, name in base_models.base_choices(workspace)]
        return names, [base_models.line_of(workspace, name) for name in names], base_models.chosen(workspace)

    def index(data: bytes):
        gallery._known.clear()
        save(workspace.cache / "images.json", data)
        save(workspace.outputs / "p.png", images_of_each_format()[0])
        return gallery.find(workspace, "fish 7")

    def library(data: bytes):
        save(workspace.cache / "adapter_library.json", data)
        return adapter_library.cards(workspace, "lora")

    def measured(data: bytes):
        save(workspace.cache / "measured.json", data)
        found = evaluation.newest(workspace)
        return found, found and found.suggestion()

    def metadata(data: bytes):
        said = dict.fromkeys(("ss_tag_frequency", "studio.trigger", "modelspec.thumbnail", "x"), typed(data))
        header = {"__metadata__": said, **{f"unet.q.lora_{s}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets":
                  [o, o + 16]} for s, o in (("A", 0), ("B", 16))}}  # fmt: skip
        path = save(workspace.adapters / "a.safetensors", raw(header, b"\0" * 32))
        return adapter_library._facts(workspace, path), lora.describe(lora.read_adapter(path))

    facts = {"sides": SIDES, "problems": {"0": "no"}, "size": [64, 64]}
    entry = {"name": "p.png", "stamp": [1, 2], "has_recipe": True, "prompt": "fish", "adapters": ["ink 1"], "seed": 7}
    sweep = {"seed": 1, "images": ["a.png", "b.png"], "prompt": [0.1, 0.2], "likeness": [], "nearest": []}
    told = {"adapter": "ink", "prompt": "x", "encoder": "y", "strengths": [0, 1], "sweeps": [sweep], "usual": 0.5}
    card = {"file:a.safetensors 1 2": {"rank": 4, "family": "x", "words": ["a"], "kind": "LoRA", "cover": "x.webp"}}
    tags = {"set": {"fish": 4, "sea": 1}}
    return [
        Reader("history.jsonl", [dump(change) + b'\n{"done": 1}\n', dump(change) + b"\n"], past("history.jsonl"), 3),
        Reader("phrases.json", [dump({"version": 1, "files": {"a.png": {"b": "model:x"}}})], past("phrases.json"), 1),
        Reader("images.json", [dump({"version": 1, "images": {"a.png": row}})], past("images.json"), 1),
        Reader("votes.json", [dump([[0, 1, "left"], [2, 3, "same"]])], voted, 2),
        Reader("grid.json", [dump(facts)], sheet, 2),
        Reader(
            "bases.json", [dump({"chosen": "x", "bases": {"x": "owner/x", "y": "/models/y.safetensors"}})], bases, 2
        ),
        Reader("the index of images", [dump([entry])], index, 1),
        Reader("the adapter library's memory", [dump(card)], library, 1),
        Reader("what was measured", [dump(told)], measured, 1),
        Reader("an adapter's metadata", [dump(tags), b"zsk, red fish", b"data:image/png;base64,AAAA"], metadata, 2),
    ]


# Base models --------------------------------------------------------------------------------------------------------


def of_bases(workspace: Workspace, place: Path) -> list[Reader]:
    files = [tensors_as_bytes({name: torch.zeros(shape) for name, shape in one.items()}) for one in CHECKPOINTS]
    headers = [made[8 : 8 + int.from_bytes(made[:8], "little")] for made in files]

    def checkpoint(data: bytes):
        ends = [int(one) for one in re.findall(rb"\d,(\d{1,5})\]", data)]  # of the tensors, as far as it says them
        body = b"\0" * max(ends, default=0)
        path = save(place / "base.safetensors", len(data).to_bytes(8, "little") + data + body)
        return str(describe_base(str(path)))

    def whole(data: bytes):
        return str(describe_base(str(save(place / "whole.safetensors", data))))

    def line(data: bytes):
        text = typed(data)
        choice = BaseChoice.of(text)
        return choice.title, str(choice), base_models.line_from(workspace, text, {}), str(base_folder(text))

    folder, weights = place / "folder", tensors_as_bytes({"x": torch.zeros(2)})
    settings_files = ["model_index.json", *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder"))]
    settings_files.append("scheduler/scheduler_config.json")
    good = {name: (ASSETS / "starter" / name).read_bytes() for name in settings_files}
    for name, data in good.items():
        save(folder / name, data)
        save((folder / name).parent / "model.safetensors", weights)

    def settings_in(name: str, layers: bool) -> Callable[[bytes], Any]:
        def read(data: bytes):
            save(folder / name, data)
            try:
                if layers:
                    return list(skeleton(str(folder)))
                return str(describe_base(str(folder))), missing_parts(folder), family_class(folder).title
            finally:
                save(folder / name, good[name])

        return read

    lines = [
        b"starter",
        b"owner/name@main?variant=fp16&quantise=8bit",
        b"/models/a.safetensors?vae=/m/v%26.safetensors",
    ]
    found = [Reader(f"a base's {name}", [data], settings_in(name, False), 1) for name, data in good.items()]
    layered = [
        Reader(f"layers by {name}", [good[name]], settings_in(name, True), 0.1) for name in settings_files[1:4:2]
    ]
    return [*found, *layered, Reader("a checkpoint's header", headers, checkpoint, 2),
            Reader("a checkpoint", files, whole, 2), Reader("the line of a base", lines, line, 4)]  # fmt: skip
