"""Images in, captions out. One file a captioner; what a person wrote is kept unless told otherwise."""

from studio.captioning.comparing import Compared, compare
from studio.captioning.kinds import Captioner, Kind, captioner_settings, list_captioners, load_captioner
from studio.captioning.models import DownloadStopped, find_model
from studio.captioning.running import MODES, CaptionReport, add_trigger, caption_dataset
from studio.captioning.scoring import Score, Scores, score
from studio.captioning.triggers import TriggerReport, trigger_report

__all__ = [
    "MODES",
    "CaptionReport",
    "Captioner",
    "Compared",
    "DownloadStopped",
    "Kind",
    "Score",
    "Scores",
    "TriggerReport",
    "add_trigger",
    "caption_dataset",
    "captioner_settings",
    "compare",
    "find_model",
    "list_captioners",
    "load_captioner",
    "score",
    "trigger_report",
]
