"""A folder of pictures and captions: read it, edit captions, check it, bring pictures in and out. No torch here."""

from studio.datasets.buckets import Frame, frame_of
from studio.datasets.captions import has_trigger, read_caption, set_caption
from studio.datasets.exporting import export
from studio.datasets.folder import Dataset, Item, open_dataset
from studio.datasets.health import Finding, examine
from studio.datasets.history import Change, Step, can_undo, history, redo, undo, write_captions
from studio.datasets.importing import copy_sample, import_pictures, list_samples
from studio.datasets.moves import remove_pictures, removed_pictures, restore_pictures
from studio.datasets.phrases import authors, merge
from studio.datasets.pictures import open_picture, size_of
from studio.datasets.remedies import remedy
from studio.datasets.thumbnails import thumbnail

__all__ = [
    "Change",
    "Dataset",
    "Finding",
    "Frame",
    "Item",
    "Step",
    "authors",
    "can_undo",
    "copy_sample",
    "examine",
    "export",
    "frame_of",
    "has_trigger",
    "history",
    "import_pictures",
    "list_samples",
    "merge",
    "open_dataset",
    "open_picture",
    "read_caption",
    "redo",
    "remedy",
    "remove_pictures",
    "removed_pictures",
    "restore_pictures",
    "set_caption",
    "size_of",
    "thumbnail",
    "undo",
    "write_captions",
]
