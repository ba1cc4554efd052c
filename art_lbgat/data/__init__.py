"""Data: the ways in (arrays, loaders, generators), data sets by name, splits and augmentation."""

from art_lbgat.data.augmentation import Augmentation, RandomCropFlip
from art_lbgat.data.sets import DataSet, load_cifar10, load_digits, load_image_folder, split
from art_lbgat.data.streams import ArrayStream, BatchStream, Stream, as_stream

__all__ = [
    "ArrayStream",
    "Augmentation",
    "BatchStream",
    "DataSet",
    "RandomCropFlip",
    "Stream",
    "as_stream",
    "load_cifar10",
    "load_digits",
    "load_image_folder",
    "split",
]
