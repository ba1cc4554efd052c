"""Data: the ways in (arrays, bytes, loaders, generators), data sets by name, splits, extra data and augmentation."""

from art_lbgat.data.augmentation import (
    Augmentation,
    CutMix,
    Cutout,
    LabelAugmentation,
    PerImage,
    RandomCropFlip,
    make_augmentation,
)
from art_lbgat.data.datasets import (
    DataSet,
    balanced_order,
    load_cifar10,
    load_cifar100,
    load_data,
    load_digits,
    load_image_folder,
    load_npz,
    load_svhn,
    load_tiny_imagenet,
    split,
    split_indices,
)
from art_lbgat.data.images import Images, MixedData, read_images, read_npz_images
from art_lbgat.data.stream import Batch, Stream, as_stream

__all__ = [
    "Augmentation", "Batch", "CutMix", "Cutout", "DataSet", "Images", "LabelAugmentation", "MixedData", "PerImage",
    "RandomCropFlip", "Stream", "as_stream", "balanced_order", "load_cifar10", "load_cifar100", "load_data",
    "load_digits", "load_image_folder", "load_npz", "load_svhn", "load_tiny_imagenet", "make_augmentation",
    "read_images", "read_npz_images", "split", "split_indices",
]  # fmt: skip
