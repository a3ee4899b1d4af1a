"""kohya's dataset_config: a TOML file of [general], [[datasets]] and [[datasets.subsets]], as settings of a run.

What means the same here is taken, what differs between subsets and has one value here is refused, and what is not taken
is reported. A subset's options count before its dataset's, and those before the general ones (docs/config_README-en.md
of sd-scripts).
"""

import tomllib
from pathlib import Path
from typing import Any

from studio.datasets.dataset import KOHYA
from studio.errors import ConfigError
from studio.training.aliases import Report
from studio.training.folders import DatasetFolder, written

MOST_BYTES = 1_000_000
_OF_A_FOLDER = ("image_dir", "num_repeats", "is_reg", "class_tokens", "flip_aug", "caption_prefix", "caption_suffix")
_OF_THE_RUN = (
    "shuffle_caption",
    "keep_tokens",
    "keep_tokens_separator",
    "caption_dropout_rate",
    "caption_tag_dropout_rate",
    "enable_wildcard",
    "enable_bucket",
    "bucket_no_upscale",
    "alpha_mask",
)
_REFUSED_WHERE_TRUE = ("color_aug", "random_crop", "secondary_separator")  # `aliases` says what to write
_NOT_TAKEN = {
    "batch_size": "it counts for each device there: set training.batch_size",
    "min_bucket_reso": "buckets keep to an area here",
    "max_bucket_reso": "buckets keep to an area here",
    "bucket_reso_steps": "buckets have the steps that the base needs",
    "caption_extension": "captions are read from .txt and .caption, whichever is there",
    "cache_info": "what is encoded is kept always",
    "max_token_length": "set data.max_token_length",
}


def read_dataset_config(file: Path, report: Report | None = None) -> dict[str, Any]:
    """{setting: value}, some under kohya's names, see `aliases`. Raises ConfigError in one sentence."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{file.name}: too large for a dataset_config.")
        return settings_of(tomllib.loads(file.read_text("utf-8")), report)
    except ConfigError as error:
        raise ConfigError(f"{file.name}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file.name} can't be read as TOML: {error}".splitlines()[0][:300]) from error


def settings_of(tree: dict[str, Any], report: Report | None = None) -> dict[str, Any]:
    """The same of a file that is read already."""
    say = report or (lambda line: None)
    datasets = [_merged(_table(tree.get("general", {})), dataset) for dataset in _tables(tree, "datasets")]
    subsets = [[_merged(dataset, subset) for subset in _tables(dataset, "subsets")] for dataset in datasets]
    everything = [one for part in subsets for one in part]
    if not everything:
        raise ConfigError("there is no [[datasets.subsets]] with an image_dir in it.")
    _check_names(everything, say)
    known = [[_folder(one) for one in part if not one.get("is_reg")] for part in subsets]
    if any(part != known[0] for part in known) and len({_side(one) for one in everything}) > 1:
        raise ConfigError(
            "its datasets have folders and resolutions of their own: a run has the same resolutions for all folders."
        )
    folders = list(dict.fromkeys(folder for part in known for folder in part))
    if not folders:
        raise ConfigError("every subset is of regularization images: there is nothing to learn.")
    sides = list(dict.fromkeys(side for one in everything if (side := _side(one))))
    if len(sides) > 1:
        say(f"{len(sides)} resolutions: an epoch counts each image once here, whatever its sizes.")
    values: dict[str, Any] = {"data.folder": folders[0].folder} | _of_the_run(everything)
    values |= {"data.resolution": sides[0]} if sides else {}
    values |= {"data.more_resolutions": sides[1:]} if sides[1:] else {}
    lines = [written(one) for one in folders if one is not folders[0] or one != DatasetFolder(one.folder)]
    values |= {"data.folders": lines} if lines else {}
    return values | _regularization(everything, say)


def _regularization(subsets: list[dict[str, Any]], say: Report) -> dict[str, Any]:
    found = list(dict.fromkeys(str(one["image_dir"]) for one in subsets if one.get("is_reg")))
    if len(found) > 1:
        raise ConfigError("it has several folders of regularization images: put them into one.")
    if found:
        say("is_reg: regularization images are shown as often as own ones here, whatever their num_repeats.")
    return {"data.regularisation": found[0]} if found else {}


def _of_the_run(subsets: list[dict[str, Any]]) -> dict[str, Any]:
    """What has one value for a run, and so must have one here."""
    values = {}
    own = [one for one in subsets if not one.get("is_reg")]
    for key in (*_OF_THE_RUN, *_REFUSED_WHERE_TRUE):
        found = [one.get(key) for one in own]
        if any(value != found[0] for value in found):
            raise ConfigError(f"{key} differs between its subsets: a run has one value for all folders.")
        if found and found[0] is not None and not (key in _REFUSED_WHERE_TRUE and not found[0]):
            values[key] = found[0]
    return values


def _check_names(subsets: list[dict[str, Any]], say: Report) -> None:
    known = {*_OF_A_FOLDER, *_OF_THE_RUN, *_REFUSED_WHERE_TRUE, *_NOT_TAKEN, "resolution"}
    for key in dict.fromkeys(key for one in subsets for key in one):
        if key in _NOT_TAKEN:
            say(f"{key} is not taken: {_NOT_TAKEN[key]}.")
        elif key not in known:
            raise ConfigError(f"{key[:40]} is not read here: take it out, or set what it means in the run itself.")


def _folder(subset: dict[str, Any]) -> DatasetFolder:
    place = subset.get("image_dir")
    if not isinstance(place, str) or not place.strip():
        raise ConfigError("a subset names no image_dir.")
    repeats = subset.get("num_repeats", 1)
    if not isinstance(repeats, int) or not 1 <= repeats <= 1000:
        raise ConfigError(f"num_repeats of {Path(place).name[:40]!r} must be a whole number from 1 to 1,000.")
    named = KOHYA.match(Path(place).name)
    if named and int(named[1]) == repeats:
        repeats = 1  # its name says it
    elif named:
        raise ConfigError(
            f"{Path(place).name[:40]!r} has repeats in its name, which count here besides num_repeats: rename it."
        )
    words = {key: subset[key] for key in ("caption_prefix", "caption_suffix", "class_tokens") if subset.get(key)}
    if any(not isinstance(text, str) for text in words.values()):
        raise ConfigError("caption_prefix, caption_suffix and class_tokens must be text.")
    return DatasetFolder(
        place.strip(),
        repeats=repeats if repeats > 1 else None,
        flip=bool(subset["flip_aug"]) if "flip_aug" in subset else None,
        prefix=words.get("caption_prefix"),
        suffix=words.get("caption_suffix"),
        caption=words.get("class_tokens", ""),
    )


def _side(subset: dict[str, Any]) -> int | None:
    """512 of 512 or [512, 512]."""
    value = subset.get("resolution")
    sides = value if isinstance(value, list) else [value]
    if value is None:
        return None
    if not sides or len(set(map(str, sides))) != 1 or not isinstance(sides[0], int):
        raise ConfigError(f"data.resolution is the side of a square, buckets do the rest (you gave {value!r}).")
    return sides[0]


def _merged(outer: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in outer.items() if not isinstance(value, list) or key == "resolution"} | inner


def _tables(tree: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = tree.get(key, [])
    return [_table(one) for one in found] if isinstance(found, list) else [_table(found)]


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("it has values where [general], [[datasets]] and [[datasets.subsets]] should be.")
    return value
