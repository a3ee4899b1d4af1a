"""The scorecard: what checkpoints draw beside what the base draws, in numbers, and the one verdict on a run.

scores.py      what is measured, and how it is kept; no torch
verdict.py     losses and scores in, one verdict out; pure, no torch
probes.py      which prompts are drawn
features.py    images as numbers: the base's VAE, and an image encoder where there is one
classifier.py  the base as a judge of image and caption (arXiv:2303.16203)
card.py        draws and fills the scores of one checkpoint
plan.py        what fits into the run's budget
in_run.py      fills it while a run trains
"""

from studio.training.scorecard.scores import Measure, Scores
from studio.training.scorecard.verdict import Evidence, Loss, Verdict, verdict_of

__all__ = ["Evidence", "Loss", "Measure", "Scores", "Verdict", "verdict_of"]
