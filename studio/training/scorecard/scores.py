"""What is measured of a checkpoint, and what each number means. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from studio.text import percent

MEASURES: dict[str, tuple[str, str]] = {  # name: (title, what it says)
    "likeness": (
        "Likeness",
        "How far the images went from the base's towards the held-out ones, in what is style and has no place in the "
        "image: 0 % is the base's, 100 % the held-out images' own.",
    ),
    "subject": (
        "Likeness, seen by an image encoder",
        "The same way in the eyes of an image encoder, each image towards the held-out image of its caption.",
    ),
    "prompt": (
        "Prompt fit",
        "How much better an image fits its own prompt than the others, against the base's images: 0 % is as the "
        "base, −100 % fits no better than any other prompt.",
    ),
    "prompt_seen": (
        "Prompt fit, seen by an image encoder",
        "The same by an image encoder that reads texts.",
    ),
    "drift": (
        "Drift",
        "How far images of unrelated prompts without the trigger went from the base's: 0 % is the same image, 100 % "
        "as different as another prompt's.",
    ),
    "collapse": (
        "Collapse",
        "How much nearer images of different prompts are to each other than the base's and the held-out ones: 100 % "
        "is one and the same image.",
    ),
    "memorized": (
        "Memorized",
        "Share of the images that have at most a quarter of the distance to a trained image that those have to "
        "each other; not measured where held-out images are that near as well.",
    ),
    "trigger": ("Trigger", "Likeness with the trigger word less that without it."),
    "gap": (
        "Gap",
        "Loss on held-out images less that on trained ones, both as shares of the base's: what was learned of the "
        "trained images alone.",
    ),
    "captions": (
        "Captions",
        "How much better the trained images fit their own captions than others', in the base's eyes, as a share of "
        "what its own images do: near 0 % the captions do not say what is on the images.",
    ),
    "captions_after": (
        "Captions, with the adapter",
        "The same in the eyes of the base with the adapter, of held-out images where there are enough: what it learned "
        "of what each caption says.",
    ),
    "captions_seen": (
        "Captions, seen by an image encoder",
        "The same by an image encoder that reads texts.",
    ),
    "different": (
        "Captions that differ",
        "Share of the trained images whose caption, without the trigger, is not the commonest one.",
    ),
    "lost": (
        "Images of noise",
        "Share of the trained images of which the base's VAE renders less than half of what varies in them: noise and "
        "damaged files.",
    ),
    "room": (
        "Room",
        "How far the held-out images are from the base's own, in units of the base's spread: below about 1 the base "
        "draws like that already.",
    ),
}


@dataclass(frozen=True)
class Measure:
    """value: as MEASURES says, 0.41 for 41 %. spread: its standard error over images and seeds. count: images."""

    value: float
    spread: float = 0.0
    count: int = 0

    def clearly_above(self, limit: float) -> bool:
        """Whether it is above the limit by more than its standard error."""
        return self.value - self.spread > limit

    def clearly_below(self, limit: float) -> bool:
        return self.value + self.spread < limit


@dataclass(frozen=True)
class Scores:
    """A checkpoint's scorecard.

    step       whose weights were measured
    measures   by the names of MEASURES; what could not be measured is missing
    strengths  {strength: held-out loss there as a share of the base's}
    suspects   trained images that fit another caption better than their own, the worst first
    encoder    the image encoder, "" for the base's VAE alone
    rows       images that went through the denoiser, all steps counted: the cost
    sheet      file in the run folder: prompts down; base, adapter, adapter without the trigger across
    """

    step: int
    measures: Mapping[str, Measure] = field(default_factory=dict)
    strengths: Mapping[float, float] = field(default_factory=dict)
    suspects: tuple[str, ...] = ()
    encoder: str = ""
    rows: int = 0
    seconds: float = 0.0
    sheet: str = ""

    def get(self, name: str) -> Measure | None:
        return self.measures.get(name)

    def value(self, name: str, otherwise: float = 0.0) -> float:
        found = self.measures.get(name)
        return found.value if found else otherwise

    def line(self) -> str:
        """ "scorecard of step 200: likeness +41 %, prompt fit −3 %, …"."""
        shown = ("likeness", "prompt", "drift", "collapse", "memorized")
        parts = [f"{MEASURES[name][0].lower()} {percent(one.value)}" for name in shown if (one := self.get(name))]
        return f"scorecard of step {self.step:,}: {', '.join(parts) or 'nothing could be measured'}"
