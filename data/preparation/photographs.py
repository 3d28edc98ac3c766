"""One photograph with its mask and part map becomes one entry of the detections, or a reason against it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data.collection import Collection
from data.detections import Detection, Part
from data.image_files import UnreadablePicture, read_labels, read_photograph
from data.preparation.mask_reader import MaskReader
from data.preparation.quality import Finding, find_faults
from data.run_lengths import encode_mask, mask_box
from utils.progress import progress


@dataclass
class Inspection:
    """The outcome of reading the photographs of a collection.

    Attributes:
        items: objects of the usable ones.
        left_out: the reason against each of the others, the end of a sentence.
        findings: what is odd about usable ones.
    """

    items: list[Detection] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    findings: dict[Path, list[Finding]] = field(default_factory=dict)


def inspect_all(masks: MaskReader, min_area: int) -> Inspection:
    """Reads every photograph of a collection with its mask and part map.

    Args:
        masks: reader of the masks.
        min_area: of a usable mask in pixels.
    """
    collection, result = masks.collection, Inspection()
    # Two photographs of one name would share a mask
    targets = Counter(collection.mask_path(image) for image in collection.images)
    for image in progress(collection.images, description="checking images"):
        # Whatever is wrong with one photograph is the reason against it, and no other
        try:
            if targets[collection.mask_path(image)] > 1:
                raise UnreadablePicture(image, "shares its name with another photograph")
            item, findings = _inspect(masks, image, min_area, len(result.items))
        except UnreadablePicture as error:
            result.left_out[image] = error.reason
            continue
        result.items.append(item)
        if findings:
            result.findings[image] = findings
    return result


def _inspect(
    masks: MaskReader, image: Path, min_area: int, number: int
) -> tuple[Detection, list[Finding]]:
    """Returns the object of one image, and what is odd about it; UnreadablePicture if unusable."""
    height, width = read_photograph(image).shape[:2]
    mask, findings = masks.read(image, (height, width))
    area = int(mask.sum())
    if area < min_area:
        raise UnreadablePicture(image, f"has a mask of {area} pixels (--min_area is {min_area})")
    item = Detection(
        id=number,
        image_path=image.as_posix(),
        height=height,
        width=width,
        bbox=mask_box(mask),
        score=1.0,
        mask=encode_mask(mask),
        parts=_inspect_parts(masks.collection, image, mask),
    )
    return item, findings + find_faults(mask)


def _inspect_parts(collection: Collection, image: Path, mask: np.ndarray) -> tuple[Part, ...]:
    """Returns the labeled regions inside the object; none for an image without a part map."""
    path = collection.parts_path(image)
    if not path.exists():
        return ()
    labels = _read_part_map(image, path, mask.shape)
    # Labels without a name would be lost in silence
    unknown = set(np.unique(labels).tolist()) - {0, *collection.part_labels}
    if unknown:
        listed = ", ".join(map(str, sorted(unknown)))
        reason = f"has labels in {path} that parts.json does not name: {listed}"
        raise UnreadablePicture(image, reason)
    parts = []
    for label, name in collection.part_labels.items():
        region = (labels == label) & mask
        if region.any():
            parts.append(Part(name, 1.0, mask_box(region), encode_mask(region), frequency=0.0))
    return tuple(parts)


def _read_part_map(image: Path, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads the part map of an image; its size must be that of the image."""
    try:
        labels = read_labels(path)
    except UnreadablePicture as error:
        raise UnreadablePicture(image, f"cannot be used: {path} {error.reason}") from error
    if labels.shape != shape:
        got, expected = (f"{w} x {h}" for h, w in (labels.shape, shape))
        raise UnreadablePicture(image, f"has {expected} pixels, but {path} has {got}")
    return labels


def with_frequencies(items: Sequence[Detection]) -> tuple[Detection, ...]:
    """Fills in how many of the objects have each part."""
    counts = Counter(name for item in items for name in {part.name for part in item.parts})
    return tuple(
        replace(
            item,
            parts=tuple(replace(p, frequency=counts[p.name] / len(items)) for p in item.parts),
        )
        for item in items
    )
