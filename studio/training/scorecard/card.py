"""Fills the scorecard of a checkpoint: draws with and without the adapter, and compares."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image, ImageOps
from torch import Tensor

from studio.basemodels import Family
from studio.basemodels.family import Conditioning
from studio.generation import Recipe, draw
from studio.generation.evaluation import is_memorized, typical_nearness
from studio.training.config import RunConfig
from studio.training.memorization import LEAST, QUARTER
from studio.training.previews import side_of
from studio.training.scorecard.classifier import SHARES, caption_losses, margins, pairs_with_others
from studio.training.scorecard.features import Encoder, Features, alike, scale_of, way
from studio.training.scorecard.plan import LOOKED_AT, STRENGTHS, Size
from studio.training.scorecard.probes import different, plain, probes_of
from studio.training.scorecard.scores import Measure, Scores
from studio.training.scorecard.sheet import contact_sheet

Measures = dict[str, Measure | None]

LEVELS = (0.125, 0.375, 0.625, 0.875)  # of the noise schedule, for losses
FEW = 4  # held-out images: of fewer, trained ones show the style as well
HALF = 0.5  # of what varies in an image: the VAE renders less of noise
UNTOLD = 0.25  # share of held-out images that would count as copies: more, and copies can't be told
SUSPECT = 0.5  # of the base's own margin, below zero: the caption of an image is another one's


@dataclass(frozen=True)
class Shown:
    """An image of the dataset: as the run crops it, with its caption as trained on."""

    name: str
    caption: str
    load: Callable[[], Image.Image]


@dataclass
class _Base:
    """What is measured once, of the base alone. Parallel to the probes."""

    images: list[Image.Image] = field(default_factory=list)
    margins: Tensor = field(default_factory=lambda: torch.zeros(0))  # of its own images
    margins_there: Tensor = field(default_factory=lambda: torch.zeros(0))  # of the dataset's images of these captions
    captions: Measure | None = None
    captions_seen: Measure | None = None
    of_set: Measures = field(default_factory=dict)  # different, lost
    suspects: tuple[str, ...] = ()
    losses: tuple[Tensor, Tensor] | None = None  # held-out and trained images


class Scorer:
    """Scores the adapter on a base. set_strength: sets the adapter's strength, 0 being the base alone."""

    def __init__(
        self,
        base: Family,
        config: RunConfig,
        held_out: Sequence[Shown],
        trained: Sequence[Shown],
        unrelated: Sequence[str],
        set_strength: Callable[[float], None],
        size: Size,
        encoder: Encoder | None = None,
    ):
        self.base, self.config, self.size, self.set_strength = base, config, size, set_strength
        trigger = config.data.trigger
        self.trigger = trigger
        self.probes = probes_of(
            [(one.name, one.caption) for one in held_out],
            [(one.name, one.caption) for one in trained],
            unrelated,
            trigger,
            (size.held_out, size.trained, size.unrelated),
        )
        self.held_out, self.trained = list(held_out), list(trained)
        self.features = Features(base, encoder)
        self.encoder = "the base's own" if self.features.by_base else getattr(encoder, "title", "") if encoder else ""
        self.rows = 0
        self.drawn: list[Image.Image] = []  # by the adapter at the last scoring, parallel to the probes
        self._base: _Base | None = None
        self._shown: dict[str, Image.Image] = {}
        self._seen: tuple[Tensor, float] | None = None

    # What is drawn -------------------------------------------------------------------------------------------------

    def score(self, step: int, strengths: bool = True) -> tuple[Scores, Image.Image]:
        """(the scores of the adapter as it is now, a contact sheet). strengths: also find the best strength."""
        began, before = time.monotonic(), self.rows
        base = self._base = self._base or self._measure_base()
        self.set_strength(1.0)
        own = [n for n, probe in enumerate(self.probes) if probe.kind != "unrelated"]
        named = [n for n in own if self.probes[n].name]
        without = [n for n in named if self.probes[n].plain != self.probes[n].prompt][: self.size.plain]
        now = [self._draw(probe.prompt, probe.seed) for probe in self.probes]
        bare = {n: self._draw(self.probes[n].plain, self.probes[n].seed) for n in without}
        measures: Measures = {}
        self._likeness(measures, named, now, bare)
        self._nearness(measures, own, now)
        self._drift(measures, now)
        losses = self._losses()
        measures["gap"] = self._gap(losses)
        measures["captions_after"] = self._captions_after()
        found = self._strengths(losses) if strengths else {}
        self.set_strength(0.0)
        self._prompt_fit(measures, now)
        self.set_strength(1.0)
        measures |= {"captions": base.captions, "captions_seen": base.captions_seen}
        measures |= base.of_set
        self.drawn = now
        scores = Scores(
            step,
            {name: one for name, one in measures.items() if one is not None},
            found,
            base.suspects,
            self.encoder,
            self.rows - before,
            round(time.monotonic() - began, 2),
        )
        return scores, contact_sheet(self._rows(now, bare))

    def _draw(self, prompt: str, seed: int) -> Image.Image:
        wanted, side = self.config.preview, side_of(self.base)
        self.rows += self.size.drawn(wanted.guidance > 1)
        return draw(
            self.base,
            Recipe(
                prompt=prompt,
                seed=seed,
                steps=min(self.size.steps, wanted.steps),
                guidance=wanted.guidance,
                guidance_rescale=wanted.guidance_rescale,
                clip_skip=self.config.data.clip_skip,
                width=side,
                height=side,
            ),
        )

    def _measure_base(self) -> _Base:
        """Its own images of the probes, without the trigger, and what it makes of the captions."""
        self.set_strength(0.0)
        found = _Base([self._draw(probe.plain, probe.seed) for probe in self.probes])
        own = different(self.probes)
        found.margins = self._margins([found.images[n] for n in own], [self.probes[n].plain for n in own])
        known = {one.name: one for one in (*self.held_out, *self.trained)}
        named = [n for n in own if self.probes[n].name]
        found.margins_there = self._margins(
            [self._image(known[self.probes[n].name]) for n in named], [self.probes[n].plain for n in named]
        )
        found.of_set = self._measure_set()
        usual = found.margins.mean().item() if len(found.margins) else 0.0
        checked = _every(self.trained, self.size.checked)
        if len(checked) > self.size.others and usual > 0:
            words = [plain(one.caption, self.trigger) for one in checked]
            rows = self._margins([self._image(one) for one in checked], words) / usual
            found.captions = _measure(rows)
            texts = self.features.texts(words)
            if texts is not None:
                own_images = self.features.content([found.images[n] for n in own])
                base_words = self.features.texts([self.probes[n].plain for n in own])
                there = _own_over_others(self.features.content([self._image(one) for one in checked]), texts)
                if base_words is not None and (level := _own_over_others(own_images, base_words).mean().item()) > 0:
                    found.captions_seen = _measure(there / level)
            worst = rows.argsort()[:5].tolist()
            found.suspects = tuple(checked[n].name for n in worst if rows[n] < -SUSPECT)
        found.losses = self._losses()
        self.set_strength(1.0)
        return found

    def _measure_set(self) -> Measures:
        """different and lost."""
        found: Measures = {}
        if len(self.trained) > 2:
            words = Counter(plain(one.caption, self.trigger) for one in self.trained)
            share = 1 - words.most_common(1)[0][1] / len(self.trained)
            found["different"] = Measure(round(share, 4), 0.0, len(self.trained))
        if seen := [self._image(one) for one in _every(self.trained, LOOKED_AT * self.size.checked)]:
            self.rows += len(seen) // 2
            found["lost"] = _measure((self.features.lost(seen) > HALF).float())
        return found

    def _image(self, one: Shown) -> Image.Image:
        if one.name not in self._shown:
            self._shown[one.name] = one.load().convert("RGB")
        return self._shown[one.name]

    def _rows(self, now: list[Image.Image], bare: dict[int, Image.Image]) -> list[tuple[str, list[Image.Image | None]]]:
        assert self._base is not None
        known = {one.name: one for one in (*self.held_out, *self.trained)}
        return [
            (
                f"{probe.kind}: {probe.prompt}",
                [
                    self._image(known[probe.name]) if probe.name in known else None,
                    self._base.images[n],
                    now[n],
                    bare.get(n),
                ],
            )
            for n, probe in enumerate(self.probes)
        ]

    # Measures -------------------------------------------------------------------------------------------------------

    def _likeness(
        self, measures: Measures, own: list[int], now: list[Image.Image], bare: dict[int, Image.Image]
    ) -> None:
        """likeness, subject, trigger and room."""
        assert self._base is not None
        target = self.held_out if len(self.held_out) >= FEW else [*self.held_out, *self.trained]
        images = [self._image(one) for one in target[:16]]
        if len(own) < 2 or len(images) < 2:
            return
        start, drawn = [self._base.images[n] for n in own], [now[n] for n in own]
        places, untriggered = [own.index(n) for n in bare], list(bare.values())
        for name, see in (("likeness", self.features.style), ("subject", self.features.content)):
            if name == "subject" and not self.features.by_encoder:
                continue
            a, b, c = see(start), see(images), see(drawn)
            scale = scale_of(a, b) if name == "likeness" else torch.ones(a.shape[1])
            a, b, c = a * scale, b * scale, c * scale
            if name == "likeness":
                apart = (a.mean(0) - b.mean(0)).square().mean().item() - 1 / len(a) - 1 / len(b)
                measures["room"] = Measure(round(max(0.0, apart) ** 0.5, 4), 0.0, len(a) + len(b))
            went = way(a, b, c)
            measures[name] = _measure(went)
            if untriggered:  # the image encoder's word counts where there is one: it comes last
                alone = way(a, b, see(untriggered) * scale, places)
                measures["trigger"] = _measure(went[places] - alone)

    def _nearness(self, measures: Measures, own: list[int], now: list[Image.Image]) -> None:
        """collapse and memorized."""
        assert self._base is not None
        seen, before = self.features.content([now[n] for n in own]), [self._base.images[n] for n in own]
        start = self.features.content(before)
        apart = different(self.probes)
        names, rows = {self.probes[n].name for n in apart}, [own.index(n) for n in apart]
        known = [self._image(one) for one in (*self.held_out, *self.trained) if one.name in names]
        if len(apart) > 2:
            among, error = alike(seen[rows])
            usual = max(alike(start[rows])[0], alike(self.features.content(known))[0] if len(known) > 2 else -1.0)
            room = max(1e-6, 1 - usual)
            measures["collapse"] = Measure((among - usual) / room, error / room, len(apart))
        if len(self.trained) < 3:
            return
        trained, limit = self._trained_seen()
        if limit > 1:
            return
        near, before_near = (seen @ trained.T).max(1).values, (start @ trained.T).max(1).values
        flags = [float(is_memorized(one.item(), limit, other.item())) for one, other in zip(near, before_near)]
        measures["memorized"] = _measure(torch.tensor(flags))

    def _trained_seen(self) -> tuple[Tensor, float]:
        """(the trained images and their mirror images where they are trained on, how near to one of them a copy is).

        Images of one subject are near to each other and no copies. Held-out ones are none either: where the features
        take some for copies they can't tell, and the limit is above 1.
        """
        if self._seen is None:
            images = [self._image(one) for one in self.trained]
            rows = self.features.content(images)
            limit = max(LEAST, 1 - QUARTER * (1 - typical_nearness(rows.numpy())))
            if self.config.data.flip:
                rows = torch.cat([rows, self.features.content([ImageOps.mirror(image) for image in images])])
            if self.held_out:
                others = self.features.content([self._image(one) for one in self.held_out[:16]])
                copies = ((others @ rows.T).max(1).values > limit).float().mean().item()
                limit = 2.0 if copies > UNTOLD else limit
            self._seen = rows, limit
        return self._seen

    def _drift(self, measures: Measures, now: list[Image.Image]) -> None:
        assert self._base is not None
        places = [n for n, probe in enumerate(self.probes) if probe.kind == "unrelated"]
        if not places or len(self.probes) < 3:
            return
        start = self.features.content(self._base.images)
        seen = self.features.content([now[n] for n in places])
        room = max(1e-6, 1 - alike(start)[0])
        measures["drift"] = _measure((1 - (seen * start[places]).sum(1)) / room)

    def _prompt_fit(self, measures: Measures, now: list[Image.Image]) -> None:
        """By the base as a classifier, and by the image encoder where it reads texts.

        The base is less sure of images in a style that it does not know, also of the dataset's own: what is to be
        expected lies between its own images and those, as far as the adapter went.
        """
        assert self._base is not None
        own, known = different(self.probes), {one.name: one for one in (*self.held_out, *self.trained)}
        words = [self.probes[n].plain for n in own]
        likeness = measures.get("likeness")
        share = min(1.0, max(0.0, likeness.value)) if likeness else 0.0

        def expected(start: Tensor, end: Tensor) -> float:
            usual = start.mean().item()
            return (1 - share) * usual + share * (min(usual, max(0.0, end.mean().item())) if len(end) else usual)

        if len(self._base.margins):
            usual = expected(self._base.margins, self._base.margins_there)
            if usual > 0:
                measures["prompt"] = _measure(self._margins([now[n] for n in own], words) / usual - 1)
        texts = self.features.texts(words)
        if texts is None or len(own) < 3 or not all(self.probes[n].name for n in own):
            return
        there = self.features.content([self._image(known[self.probes[n].name]) for n in own])
        before = self.features.content([self._base.images[n] for n in own])
        usual = expected(_own_over_others(before, texts), _own_over_others(there, texts))
        if usual > 0:
            after = _own_over_others(self.features.content([now[n] for n in own]), texts)
            measures["prompt_seen"] = _measure(after / usual - 1)

    def _captions_after(self) -> Measure | None:
        """By the base with the adapter as a classifier: of captions that say nothing it learns to tell nothing."""
        assert self._base is not None
        usual = self._base.margins.mean().item() if len(self._base.margins) else 0.0
        if not self.size.checked or usual <= 0:
            return None
        held_out, trained = (
            list({one.caption: one for one in some}.values()) for some in (self.held_out, self.trained)
        )
        some = _every(held_out if len(held_out) > self.size.others else trained, self.size.losses)
        if len(some) <= self.size.others:
            return None
        return _measure(self._margins([self._image(one) for one in some], [one.caption for one in some]) / usual)

    # Losses ---------------------------------------------------------------------------------------------------------

    def _margins(self, images: list[Image.Image], words: list[str]) -> Tensor:
        """(images,) see `classifier.margins`; empty for too few."""
        if len(images) <= self.size.others:
            return torch.zeros(0)
        pairs = pairs_with_others(len(images), self.size.others)
        self.rows += len(pairs) * len(SHARES)
        return margins(self._caption_losses(images, words, pairs, SHARES), self.size.others)

    def _caption_losses(
        self, images: list[Image.Image], words: list[str], pairs: list[tuple[int, int]], shares: Sequence[float]
    ) -> Tensor:
        self.base.onload()
        latents = [self.base.encode_image([image])[0][0].cpu() for image in images]
        return caption_losses(
            self.base, latents, self._conditions(words), pairs, [image.size for image in images], shares
        )

    def _conditions(self, words: list[str]) -> list[Conditioning]:
        """A row each, all of one length, read literally as in training."""
        data = self.config.data
        parts = [[(text, 1.0)] for text in words]
        chunks = max(self.base.chunks(part, data.max_token_length) for part in parts)
        with torch.no_grad():
            found = self.base.encode_parts(parts, False, data.clip_skip, chunks, data.max_token_length)
        return [{name: value[n : n + 1] for name, value in found.items()} for n in range(len(words))]

    def _losses(self) -> tuple[Tensor, Tensor] | None:
        """(images, levels) of held-out and of trained images, under their captions; None where one is missing."""
        held = self.held_out[: self.size.losses]
        trained = _every(self.trained, self.size.losses)
        if not held or not trained:
            return None
        return self._losses_of(held), self._losses_of(trained)

    def _losses_of(self, some: list[Shown]) -> Tensor:
        self.rows += len(some) * len(LEVELS)
        pairs = [(n, n) for n in range(len(some))]
        return self._caption_losses([self._image(one) for one in some], [one.caption for one in some], pairs, LEVELS)

    def _gap(self, now: tuple[Tensor, Tensor] | None) -> Measure | None:
        before = self._base.losses if self._base else None
        if now is None or before is None:
            return None
        held, trained = (one.mean(1) / start.mean(1).clamp(min=1e-9) for one, start in zip(now, before))
        error = sum((part.var().item() / len(part) if len(part) > 1 else 0.0) for part in (held, trained)) ** 0.5
        return Measure(held.mean().item() - trained.mean().item(), error, len(held) + len(trained))

    def strengths(self) -> dict[float, float]:
        """See `Scores.strengths`, of the adapter as it is now; {} where no loss can be measured."""
        self._base = self._base or self._measure_base()
        self.set_strength(1.0)
        return self._strengths(self._losses())

    def _strengths(self, now: tuple[Tensor, Tensor] | None) -> dict[float, float]:
        """{strength: held-out loss as a share of the base's}."""
        before = self._base.losses if self._base else None
        if now is None or before is None:
            return {}
        usual = before[0].mean().item()
        found = {1.0: now[0].mean().item() / usual}
        for strength in STRENGTHS:
            self.set_strength(strength)
            found[strength] = self._losses_of(self.held_out[: self.size.losses]).mean().item() / usual
        self.set_strength(1.0)
        return dict(sorted(found.items()))


def _every(some: list[Shown], most: int) -> list[Shown]:
    """At most `most` of them, evenly spread."""
    return some[:: -(-len(some) // most) or 1] if most else []


def _measure(rows: Tensor) -> Measure:
    """Mean and standard error over the rows."""
    error = (rows.std() / len(rows) ** 0.5).item() if len(rows) > 1 else 0.0
    return Measure(round(rows.mean().item(), 4), round(error, 4), len(rows))


def _own_over_others(images: Tensor, texts: Tensor) -> Tensor:
    """(N,) cosine with the own text less the mean with the others'."""
    near = images @ texts.T
    count = len(near)
    return near.diagonal() - (near.sum(1) - near.diagonal()) / (count - 1)
