"""Data: the ways in (arrays, bytes, loaders, generators), data sets by name, splits, extra data and augmentation."""

from art_lbgat.data.archives import load_npz, read_npz_images
from art_lbgat.data.arrays import ArrayStream
from art_lbgat.data.augmentation import Augmentation, Cutout, LabelAugmentation, RandomCropFlip
from art_lbgat.data.batches import Batch, Stream
from art_lbgat.data.folders import load_image_folder, load_tiny_imagenet, read_images
from art_lbgat.data.images import Images
from art_lbgat.data.mixed import MixedData
from art_lbgat.data.named import load_data
from art_lbgat.data.pipelines import make_augmentation
from art_lbgat.data.published import load_cifar10, load_cifar100, load_digits, load_svhn
from art_lbgat.data.sets import DataSet, balanced_order, split, split_indices
from art_lbgat.data.streams import BatchStream, as_stream
from art_lbgat.data.transforms import CutMix, PerImage

__all__ = [
    "ArrayStream",
    "Augmentation",
    "Batch",
    "BatchStream",
    "CutMix",
    "Cutout",
    "DataSet",
    "Images",
    "LabelAugmentation",
    "MixedData",
    "PerImage",
    "RandomCropFlip",
    "Stream",
    "as_stream",
    "balanced_order",
    "load_cifar10",
    "load_cifar100",
    "load_data",
    "load_digits",
    "load_image_folder",
    "load_npz",
    "load_svhn",
    "load_tiny_imagenet",
    "make_augmentation",
    "read_images",
    "read_npz_images",
    "split",
    "split_indices",
]
