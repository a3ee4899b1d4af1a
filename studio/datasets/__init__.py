"""A folder of images and captions: read it, edit captions, check it, bring images in and out. No torch here."""

from studio.datasets.buckets import Frame, frame_of
from studio.datasets.captions import has_trigger, read_caption, set_caption
from studio.datasets.dataset import Dataset, Item
from studio.datasets.exporting import export
from studio.datasets.folder import open_dataset
from studio.datasets.health import Finding, examine
from studio.datasets.history import Change, Step, can_undo, history, redo, undo, write_captions
from studio.datasets.images import open_image, size_of
from studio.datasets.importing import copy_sample, import_images, list_samples
from studio.datasets.phrases import authors, merge
from studio.datasets.remedies import remedy
from studio.datasets.removal import remove_images, removed_images, restore_images
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
    "import_images",
    "list_samples",
    "merge",
    "open_dataset",
    "open_image",
    "read_caption",
    "redo",
    "remedy",
    "remove_images",
    "removed_images",
    "restore_images",
    "set_caption",
    "size_of",
    "thumbnail",
    "undo",
    "write_captions",
]
