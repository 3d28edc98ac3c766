"""Prepares a collection: datasets/<name>/ -> cache/<name>/detections.json and collection.json.

Every photograph holds one object, which its mask outlines. Photographs that cannot be used stop the
preparation, or are left out and listed with --skip_invalid. CUB, Pascal3D+ and ImageNet are arranged
as collections first, from their official archives or folders.

Examples:
  # Photographs of birds in datasets/photobirds/images/, masks in datasets/photobirds/masks/
  python -m data.prepare --dataset photobirds --category bird

  # What is wrong with them: a list, and cache/photobirds/check.png
  python -m data.prepare --dataset photobirds --category bird --check

  # Official data sets; masks of ImageNet by Mask R-CNN or by another tool
  python -m data.prepare --dataset cub --source downloads/CUB_200_2011.tgz downloads/cmr/cub
  python -m data.prepare --dataset imagenet_zebra --source downloads/imagenet --mask_rcnn maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth --skip_invalid
  python -m data.prepare --dataset all --source downloads/imagenet --annotations instances.json --skip_invalid
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from data.cache.folders import collection_path
from data.cache.pose_files import hypotheses_path, poses_path
from data.collection import Collection, check_category, open_collection
from data.definitions import CATEGORIES, MODES, expand_dataset
from data.detections import (
    Detection,
    Detections,
    Part,
    detections_path,
    encode_mask,
    load_detections,
    mask_box,
    save_detections,
)
from data.image_files import UnreadablePicture, read_labels, read_mask, read_photograph
from data.preparation import benchmark_datasets, inspection, masking
from utils import cli
from utils.cli import UserError
from utils.files import write_json
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

_NAMED_IN_ERROR = 3  # unusable images that an error lists


@dataclass(frozen=True)
class PrepareConfig:
    """Options of the preparation; the parser holds their defaults."""

    dataset: str
    category: str | None
    min_area: int
    skip_invalid: bool
    source: tuple[Path, ...] = ()
    annotations: Path | None = None
    mask_rcnn: Path | None = None
    check: bool = False


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m data.prepare", description=__doc__)
    parser.add_argument("--dataset", type=cli.run_name, required=True, metavar="NAME", help="name of the folder in datasets/, or all for the 13 default ones")
    parser.add_argument("--source", type=Path, nargs="+", default=(), metavar="PATH", help="folders and archives (.tar, .tgz, .zip) of cub, p3d_* and imagenet_*, and of the annotations of CMR (default: datasets/<name>/ and datasets/<cub, p3d or imagenet>/)")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="masks for photographs without: a COCO file of instances, by any tool")
    parser.add_argument("--mask_rcnn", type=Path, metavar="FILE", help="masks for photographs without: weights of torchvision's Mask R-CNN (maskrcnn_resnet50_fpn)")
    parser.add_argument("--check", action="store_true", help="only report what is wrong with each photograph, and draw a contact sheet")
    parser.add_argument("--category", default=None, metavar="CATEGORY", help=f"what the photographs show, if the collection does not say it: {', '.join(CATEGORIES)}")
    parser.add_argument("--min_area", type=cli.positive_int, default=256, metavar="N", help="smallest usable mask in pixels (default: %(default)s)")
    parser.add_argument("--skip_invalid", action="store_true", help="leave unusable images out and list them, instead of stopping")
    return parser
# fmt: on


def prepare_each(config: PrepareConfig) -> None:
    """Prepares one data set, or the 13 default ones; those that fail are told together at the end.

    Raises:
        UserError: as `prepare`, of the first that failed.
    """
    names = expand_dataset(config.dataset)
    if len(names) == 1:
        prepare(config)
        return
    failures = []
    for name in names:
        try:
            prepare(replace(config, dataset=name, category=None))
        except UserError as error:
            logger.warning("%s", error)
            failures.append(name)
    if failures:
        raise UserError(
            f"--dataset all: {len(failures)} of {len(names)} data sets are not prepared: "
            f"{', '.join(failures)}. Prepare them one by one, with what the lines above ask for."
        )


def prepare(config: PrepareConfig) -> Detections | None:
    """Checks every image of a collection and writes its detections and its record.

    Returns:
        The detections; None if the images were only to be checked.

    Raises:
        UserError: if the collection is missing, the category unknown, or an image unusable; nothing
            is written then.
    """
    if benchmark_datasets.is_official(config.dataset):
        benchmark_datasets.arrange(config.dataset, config.source)
    collection = open_collection(config.dataset)
    category = _choose_category(collection, config.category)
    objectless = _detect_masks(collection, category, config)
    if not (collection.root / "masks").is_dir():
        raise UserError(
            f"{collection.root}/masks/ does not exist. Put a mask for every photograph there: "
            "same name, .png, white = object. Or let --mask_rcnn or --annotations make them."
        )
    items, left_out = _inspect_all(collection, config.min_area)
    left_out |= objectless
    if config.check:
        inspection.report(collection, items, left_out)
        return None
    if left_out and not (config.skip_invalid and items):
        raise UserError(_describe(collection, left_out))
    detections = Detections(config.dataset, category, _with_frequencies(items))
    _warn_about_stale_poses(detections)
    write_json(collection_path(config.dataset), _record(collection, config, detections, left_out))
    save_detections(detections)
    _report(collection, detections, left_out)
    return detections


def _detect_masks(collection: Collection, category: str, config: PrepareConfig) -> dict[Path, str]:
    """Writes the masks that are missing, if the options say how; returns why some stay empty."""
    if config.annotations is not None:
        detect = masking.coco_detector(config.annotations)
    elif config.mask_rcnn is not None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        detect = masking.mask_rcnn_detector(config.mask_rcnn, device)
    else:
        return {}
    return masking.write_masks(collection, category, detect)


def _choose_category(collection: Collection, option: str | None) -> str:
    """Returns the category of the option or of the collection; UserError if they differ."""
    category = option or collection.category
    if category is None:
        raise UserError(
            f"{collection.root}/ does not say what it shows. Add --category with one of: "
            f"{', '.join(CATEGORIES)}."
        )
    check_category(category, "--category")
    if collection.category not in (None, category):
        raise UserError(
            f"--category {category}: {collection.root}/ is a collection of category "
            f"{collection.category}. Leave the option out."
        )
    return category


def _inspect_all(collection: Collection, min_area: int) -> tuple[list[Detection], dict[Path, str]]:
    """Returns the objects of the usable images, and the reason against every other image."""
    targets = Counter(collection.mask_path(image) for image in collection.images)
    items: list[Detection] = []
    left_out: dict[Path, str] = {}
    for image in progress(collection.images, description="checking images"):
        try:
            if targets[collection.mask_path(image)] > 1:
                raise UnreadablePicture(image, "shares its name with another photograph")
            items.append(_inspect(collection, image, min_area, len(items)))
        except UnreadablePicture as error:
            left_out[image] = error.reason
    return items, left_out


def _inspect(collection: Collection, image: Path, min_area: int, number: int) -> Detection:
    """Returns the object of one image; UnreadablePicture if it cannot be used."""
    height, width = read_photograph(image).shape[:2]
    mask_path = collection.mask_path(image)
    brightness = _matching(image, mask_path, read_mask, (height, width))
    mask = brightness > 127
    if not mask.any():
        largest = int(brightness.max())
        reason = (
            f"has an empty mask ({mask_path}: white = 255 means object, the maximum is {largest})"
        )
        raise UnreadablePicture(image, reason)
    if mask.sum() < min_area:
        reason = f"has a mask of {mask.sum()} pixels (--min_area is {min_area})"
        raise UnreadablePicture(image, reason)
    return Detection(
        id=number,
        image_path=image.as_posix(),
        height=height,
        width=width,
        bbox=mask_box(mask),
        score=1.0,
        mask=encode_mask(mask),
        parts=_inspect_parts(collection, image, mask),
    )


def _inspect_parts(collection: Collection, image: Path, mask: np.ndarray) -> tuple[Part, ...]:
    """Returns the labeled regions inside the object; none for an image without a part map."""
    path = collection.parts_path(image)
    if not path.exists():
        return ()
    labels = _matching(image, path, read_labels, mask.shape)
    unknown = set(np.unique(labels)) - {0, *collection.part_labels}
    if unknown:
        listed = ", ".join(map(str, sorted(unknown)))
        raise UnreadablePicture(
            image, f"has labels in {path} that parts.json does not name: {listed}"
        )
    parts = []
    for label, name in sorted(collection.part_labels.items()):
        region = (labels == label) & mask
        if region.any():
            parts.append(Part(name, 1.0, mask_box(region), encode_mask(region), frequency=0.0))
    return tuple(parts)


def _matching(image: Path, path: Path, read: Callable, shape: tuple[int, ...]) -> np.ndarray:
    """Reads the mask or part map of an image; its size must be that of the image."""
    try:
        array = read(path)
    except UnreadablePicture as error:
        raise UnreadablePicture(image, f"cannot be used: {path} {error.reason}") from error
    if array.shape != shape:
        got, expected = (f"{w} x {h}" for h, w in (array.shape, shape))
        reason = f"has {expected} pixels, but {path} has {got}"
        raise UnreadablePicture(image, reason)
    return array


def _with_frequencies(items: list[Detection]) -> tuple[Detection, ...]:
    """Fills in how many of the objects have each part."""
    counts = Counter(name for item in items for name in {part.name for part in item.parts})
    return tuple(
        replace(
            item,
            parts=tuple(replace(p, frequency=counts[p.name] / len(items)) for p in item.parts),
        )
        for item in items
    )


def _describe(collection: Collection, left_out: dict[Path, str]) -> str:
    first = list(left_out.items())[:_NAMED_IN_ERROR]
    listed = "; ".join(f"{image.relative_to(collection.root)} {why}" for image, why in first)
    more = "; ..." if len(left_out) > len(first) else ""
    return (
        f"{collection.root}/: {len(left_out)} of {len(collection.images)} images cannot be used: "
        f"{listed}{more}. Repair or remove them, or leave them out with --skip_invalid."
    )


def _record(
    collection: Collection,
    config: PrepareConfig,
    detections: Detections,
    left_out: dict[Path, str],
) -> dict:
    """Returns the content of collection.json."""
    return {
        "dataset": detections.dataset,
        "category": detections.category,
        "num_images": len(detections),
        "min_area": config.min_area,
        "part_frequencies": _part_frequencies(detections),
        "left_out": [{"image": path.as_posix(), "reason": why} for path, why in left_out.items()],
        "fingerprint": detections.fingerprint,
    }


def _part_frequencies(detections: Detections) -> dict[str, float]:
    parts = (part for item in detections.items for part in item.parts)
    return dict(sorted({part.name: part.frequency for part in parts}.items()))


def _warn_about_stale_poses(detections: Detections) -> None:
    """Tells that poses of earlier detections will be refused, if there are any."""
    name = detections.dataset
    made = [path(name, mode) for path in (hypotheses_path, poses_path) for mode in MODES]
    made = [str(path) for path in made if path.exists()]
    if not made or not detections_path(name).exists():
        return
    try:
        earlier = load_detections(name).fingerprint
    except UserError:  # damaged, and about to be replaced
        earlier = None
    if earlier != detections.fingerprint:
        logger.warning(
            "The images or masks have changed since %s were made: estimate the poses again.",
            ", ".join(made),
        )


def _report(collection: Collection, detections: Detections, left_out: dict[Path, str]) -> None:
    for image, reason in left_out.items():
        logger.warning("left out: %s %s", image, reason)
    if collection.ignored:
        count, first = len(collection.ignored), collection.ignored[0]
        logger.warning("ignored: %d files that are no .jpg or .png, such as %s", count, first)
    frequencies = _part_frequencies(detections).items()
    parts = ", ".join(f"{name} {frequency:.0%}" for name, frequency in frequencies) or "none"
    logger.info(
        "%s: %d images of category %s, %d left out; parts: %s",
        detections_path(detections.dataset),
        len(detections),
        detections.category,
        len(left_out),
        parts,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and prepares the collection."""
    config = PrepareConfig(**vars(build_parser().parse_args(argv)))
    configure_logging()
    prepare_each(config)


if __name__ == "__main__":
    cli.run(main)
