"""A line of `preview.prompts`: a prompt, perhaps with a strength and kohya's flags behind it. No torch here.

red apple @0.5
red apple --n blurry --w 768 --h 1024 --d 7 --l 4.5 --s 20 --am 0.5
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from studio.errors import ConfigError

MOST_SEED = 2**63 - 1
_FLAGS = {  # flag: (field, kind, least, most)
    "w": ("width", int, 64, 2048),
    "h": ("height", int, 64, 2048),
    "d": ("seed", int, 0, MOST_SEED),
    "l": ("guidance", float, 0, 30),
    "s": ("steps", int, 1, 200),
    "am": ("strength", float, -10, 10),
}


@dataclass(frozen=True)
class PreviewLine:
    """What a line asks for; None: as the run has it. others: flags of kohya's scripts that have no meaning here."""

    prompt: str
    strength: float = 1.0
    negative: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    guidance: float | None = None
    steps: int | None = None
    others: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """The fields of a Recipe that the line sets, sizes aside."""
        found = {"seed": self.seed, "guidance": self.guidance, "steps": self.steps}
        return {"negative_prompt": self.negative} | {key: value for key, value in found.items() if value is not None}


def read_preview(line: str) -> PreviewLine:
    """A line taken apart; numbers out of range are brought into it, as kohya's scripts do.

    A flag without its value, and one that is not known, is left out.
    """
    text, *flags = re.split(r"(?:^|\s)--(?=[A-Za-z]{1,2}(?:\s|$))", line.strip())
    found: dict[str, Any] = {}
    others = []
    for flag in flags:
        name, _, value = flag.partition(" ")
        name, value = name.lower(), value.strip()
        if name == "n":
            found["negative"] = value
            continue
        known = _FLAGS.get(name)
        number = re.match(r"-?\d{1,19}(?:\.\d{1,19})?", value)
        if known is None or number is None:
            others.append(f"--{name}")
            continue
        field, kind, least, most = known
        found[field] = kind(max(least, min(most, float(number[0]) if kind is float else int(float(number[0])))))
    prompt, strength = _at(text)
    return PreviewLine(**{"prompt": prompt, "strength": strength, **found, "others": tuple(others)})


class LineNumbers(BaseModel):
    """The numbers of a line, with their ranges."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    width: int | None = Field(None, ge=64, le=2048)
    height: int | None = Field(None, ge=64, le=2048)
    seed: int | None = Field(None, ge=0, le=MOST_SEED)
    guidance: float | None = Field(None, ge=0, le=30)
    steps: int | None = Field(None, ge=1, le=200)
    strength: float | None = Field(None, ge=-10, le=10)


def write_preview(line: PreviewLine) -> str:
    """The line that `read_preview` takes apart into this. Raises ConfigError where a text reads as a flag."""
    said = " ".join(line.prompt.split())
    negative = " ".join(line.negative.split())
    said += f" --n {negative}" if negative else ""
    for flag, (field, *_) in _FLAGS.items():
        value = getattr(line, field)
        if value is not None and (field, value) != ("strength", 1.0):
            said += f" --{flag} {value:.10g}" if isinstance(value, float) else f" --{flag} {value}"
    back = read_preview(said)
    if (back.prompt, back.negative) != (" ".join(line.prompt.split()), negative):
        raise ConfigError(
            "The prompt or negative prompt holds what reads as a flag, such as --w or @0.5: leave it out."
        )
    return said


def _at(text: str) -> tuple[str, float]:
    """("red apple", 0.5) of "red apple @0.5"; strength 1 where none is said."""
    found = re.fullmatch(r"(.*\S)\s*@\s*(-?\d{1,2}(?:\.\d+)?)\s*", text.strip())
    if found and -10 <= float(found[2]) <= 10:
        return found[1], float(found[2])
    return text.strip(), 1.0


def prompt_and_strength(line: str) -> tuple[str, float]:
    """("red apple", 0.5) of "red apple @0.5 --s 20"; strength 1 where none is said."""
    found = read_preview(line)
    return found.prompt, found.strength


def foreign_options(lines: list[str]) -> list[str]:
    """A line where previews hold flags of kohya's sample prompts that have no meaning here."""
    used = [(line, others) for line in lines if (others := read_preview(line).others)]
    if not used:
        return []
    line, others = used[0]
    return [
        f"The preview {line[:60]!r} has flags that have no effect here ({', '.join(others)}): --n, --w, --h, --d, --l, "
        "--s and --am are read."
    ]
