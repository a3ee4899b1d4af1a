"""A line of `preview.prompts`: a prompt, perhaps with a strength behind it. No torch here."""

import re


def prompt_and_strength(line: str) -> tuple[str, float]:
    """("red apple", 0.5) of "red apple @0.5"; strength 1 where none is said."""
    found = re.fullmatch(r"(.*\S)\s*@\s*(-?\d{1,2}(?:\.\d+)?)\s*", line.strip())
    if found and -10 <= float(found[2]) <= 10:
        return found[1], float(found[2])
    return line.strip(), 1.0


def foreign_options(lines: list[str]) -> list[str]:
    """A line where previews hold options of kohya's sample prompts, which are read as plain words here."""
    found = [(line, re.findall(r"(?:^|\s)--([nwhdlsgm]|ss|am|fs|sn|cn)\b", line)) for line in lines]
    used = [(line, options) for line, options in found if options]
    if not used:
        return []
    line, options = used[0]
    return [
        f"The preview {line[:60]!r} has options of kohya's scripts ({', '.join(f'--{one}' for one in options)}), which "
        "are drawn as words here: take them out, and set preview.steps, preview.guidance and preview.seed."
    ]
