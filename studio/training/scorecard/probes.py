"""Which prompts a scorecard draws. No torch here."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from studio.training.preview_prompts import prompt_and_strength

SEED = 7100  # of the first image; each prompt has its own
FEW = 3  # different captions: of fewer, other prompts with the trigger show whether prompts still count
GENERIC = ("a red apple on a table", "a street in a city, evening", "a portrait of an old man", "a house by a lake")


@dataclass(frozen=True)
class Probe:
    """A prompt and its seed.

    kind    "held-out", "trained" or "unrelated": where the prompt is from; "asked": an unrelated one with the trigger
    prompt  with the trigger where the captions have it
    plain   without
    name    of the image whose caption it is, "" for none
    """

    kind: str
    prompt: str
    plain: str
    seed: int
    name: str = ""


def probes_of(
    held_out: Sequence[tuple[str, str]],
    trained: Sequence[tuple[str, str]],
    unrelated: Sequence[str],
    trigger: str,
    counts: tuple[int, int, int],
) -> list[Probe]:
    """held_out, trained: (name, caption as trained on). counts: how many of held-out, trained and unrelated prompts.

    Where fewer captions are held out than asked for, trained ones take their place: their kind says so. Where nearly
    all are the same, each is drawn for several images, and unrelated prompts with the trigger in front are added. The
    choice depends on the captions alone, so that two runs on a dataset are measured by the same images.
    """
    found: list[Probe] = []
    spare = _spread(trained, counts[0] + counts[1])
    own = _spread(held_out, counts[0])
    chosen = [("held-out", *row) for row in own]
    fill = counts[0] - len(chosen)
    chosen += [("trained", *row) for row in spare[: counts[1] + fill]]
    first = {caption: name for _, name, caption in reversed(chosen)}
    if len(first) >= FEW:  # the same caption twice shows nothing of prompts
        chosen = [row for row in chosen if first[row[2]] == row[1]]
    for kind, name, caption in chosen:
        found.append(Probe(kind, _escaped(caption), _escaped(plain(caption, trigger)), SEED + len(found), name))
    others = unrelated_prompts(unrelated, [caption for _, caption in (*held_out, *trained)], trigger)
    for prompt in others[:FEW] if len(first) < FEW else ():
        asked = f"{trigger.strip()}, {prompt}" if trigger.strip() else prompt
        found.append(Probe("asked", asked, prompt, SEED + len(found)))
    for prompt in others[: counts[2]]:
        found.append(Probe("unrelated", prompt, prompt, SEED + 500 + len(found)))
    return found


def different(probes: Sequence[Probe]) -> list[int]:
    """Places of the probes that are not unrelated, one of each prompt."""
    first = {probe.plain: n for n, probe in reversed(list(enumerate(probes))) if probe.kind != "unrelated"}
    return sorted(first.values())


def plain(caption: str, trigger: str) -> str:
    """The caption without the trigger in front, which may be all there is."""
    trigger = trigger.strip()
    if trigger and caption.lower().startswith(trigger.lower()):
        return caption[len(trigger) :].lstrip(" ,")
    return caption


def unrelated_prompts(usual: Sequence[str], captions: Sequence[str], trigger: str) -> list[str]:
    """The base's usual preview prompts and GENERIC ones, without what is a caption or has the trigger in it."""
    known = [caption.lower() for caption in captions]
    own = [prompt_and_strength(line)[0] for line in usual if line.strip()]
    return [
        line
        for line in dict.fromkeys([*own, *GENERIC])
        if not (trigger and trigger.lower() in line.lower()) and not any(line.lower() in one for one in known)
    ]


def _spread(rows: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """`count` of them, the same whatever their order."""
    rows = sorted(set(rows))
    return sorted(random.Random(0).sample(rows, min(count, len(rows))))


def _escaped(caption: str) -> str:
    """As a prompt that is read literally, as training reads captions."""
    return "".join(f"\\{letter}" if letter in "()[]\\" else letter for letter in caption)
