"""A folder of pictures and captions: read it, edit captions, bring pictures in. No torch here."""

from studio.datasets.buckets import Frame, frame_of
from studio.datasets.captions import has_trigger, read_caption, set_caption
from studio.datasets.folder import Dataset, Item, open_dataset
from studio.datasets.importing import copy_sample, import_pictures, list_samples
from studio.datasets.pictures import open_picture, size_of
from studio.datasets.thumbnails import thumbnail

__all__ = [
    "Dataset",
    "Frame",
    "Item",
    "copy_sample",
    "frame_of",
    "has_trigger",
    "import_pictures",
    "list_samples",
    "open_dataset",
    "open_picture",
    "read_caption",
    "set_caption",
    "size_of",
    "thumbnail",
]
