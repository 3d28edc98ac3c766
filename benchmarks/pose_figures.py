"""Accuracy of the poses of a collection, and the tables of `benchmarks.pose_accuracy`."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.halves import HALVES, Protocol
from benchmarks.pose_confidence import calibration_error
from benchmarks.pose_errors import Truth, load_truth
from data.cache.pose_files import EstimatedPoses, Hypotheses
from data.collection import image_stem
from data.detections import Detections
from data.ground_truth import load_ground_truth
from data.view_labels import SECTORS, TURNED_ROUND
from geometry import quaternion

CONFIDENT = 0.8  # share of the images, the most confident ones
Figures = dict[str, Any]

_COLUMNS = {  # heading: figure, format
    "images": ("images", "d"),
    "right": ("share_near", ".1%"),
    "median": ("median_degrees", ".1f"),
    "turned": ("share_turned_round", ".1%"),
    "ends": ("share_either_end_near", ".1%"),
    "sure": ("share_sure_near", ".1%"),
    "best 80%": ("share_confident_near", ".1%"),
    "conf.": ("mean_confidence", ".1%"),
    "highest": ("highest_confidence", ".1%"),
    "ECE": ("calibration_error", ".3f"),
    "IoU 1": ("iou_step1", ".3f"),
    "IoU 2": ("iou_step2", ".3f"),
    "shapes": ("iou_shapes", ".3f"),
    "right 1": ("share_near_step1", ".1%"),
    "any": ("share_any_near", ".1%"),
}
EXPLANATION = """\
right     rotation within 30 degrees of the truth; where only sectors are labeled, azimuth within 45
turned    off by more than 135 degrees
ends      right, if front and back count as the same
sure      right, of the images whose label leaves no doubt
best 80%  right, of the four fifths with the highest confidence
conf.     mean confidence; highest: of all images; ECE: its expected calibration error in 10 bins
IoU       overlap of the silhouettes: the best hypothesis of step 1, the pose that step 2 chose
shapes    the same of the shapes that step 2 fitted
right 1   the hypothesis of the best overlap is right; any: some hypothesis of the image is"""


class Estimates(NamedTuple):
    """Estimates of the two steps for the N images of a collection, and their errors.

    Attributes:
        half: N names of halves.
        truth: what is known of the views.
        degrees: (N,) errors of the chosen poses.
        either_end: (N,) the same if front and back count as the same.
        confidence: (N,) of the chosen poses.
        iou: (N,) overlap of the chosen poses.
        shape_iou: (N,) overlap of the fitted shapes; None if there are none.
        step1_degrees: (N,) errors of the best hypotheses.
        step1_iou: (N,) overlaps of the best hypotheses.
        any_degrees: (N,) errors of the nearest hypotheses.
    """

    half: list[str]
    truth: Truth
    degrees: Tensor
    either_end: Tensor
    confidence: Tensor
    iou: Tensor
    shape_iou: Tensor | None
    step1_degrees: Tensor
    step1_iou: Tensor
    any_degrees: Tensor


def compare(
    detections: Detections,
    protocol: Protocol,
    hypotheses: Hypotheses,
    poses: EstimatedPoses,
    any_frame: bool = False,
) -> Estimates:
    """Compares the results of both steps with the truth.

    Args:
        detections: N images.
        protocol: how their collection is measured.
        hypotheses: of step 1.
        poses: of step 2, of all images.
        any_frame: whether the axes of the template are arbitrary: those are taken that suit most
            poses.
    """
    count = len(detections)
    if len(poses.indices) != count:
        raise ValueError(f"poses: expected those of all {count} images, got {len(poses.indices)}.")
    truth, rows = load_truth(detections, protocol.view), torch.arange(count)
    # The half of an image depends on its name or on its true shape
    known = load_ground_truth(detections)
    shape_ids = [-1] * count if known is None else known.shape_id.tolist()
    names = [image_stem(item.image_path, detections.dataset) for item in detections.items]
    # Step 2 chooses among the hypotheses and the poses of the same silhouette and opposite depth
    rotation, chosen = hypotheses.pose.rotation, poses.pose.rotation
    rotation = torch.cat([rotation, quaternion.complementary(rotation)], dim=1)
    if any_frame:
        frame = truth.align(chosen)
        rotation, chosen = frame.apply(rotation), frame.apply(chosen)
    # Errors of all hypotheses; the one of the highest overlap is the result of step 1
    degrees = truth.errors(rotation, rows)
    best_iou, best = hypotheses.iou.max(dim=1)
    return Estimates(
        half=[protocol.half_of(*pair) for pair in zip(names, shape_ids, strict=True)],
        truth=truth,
        degrees=truth.errors(chosen, rows),
        either_end=truth.errors_of_either_end(chosen, rows),
        confidence=poses.confidence[:, 0],
        iou=poses.iou[:, 0],
        shape_iou=None if poses.shapes is None else poses.shapes.iou[:, 0],
        step1_degrees=degrees[rows, best],
        step1_iou=best_iou,
        any_degrees=degrees.amin(dim=1),
    )


def judge(estimates: Estimates) -> dict[str, Figures]:
    """Returns the figures of each half that has images."""
    return {
        half: figures(estimates, rows)
        for half in HALVES
        if len(rows := torch.tensor([row for row, of in enumerate(estimates.half) if of == half]))
    }


def figures(estimates: Estimates, rows: Tensor) -> Figures:
    """Returns what `EXPLANATION` describes of the given images, those without truth left out."""
    truth = estimates.truth
    rows = rows[truth.known[rows]]
    near, degrees = estimates.degrees <= truth.near, estimates.degrees[rows]
    confidence = estimates.confidence[rows]
    order = confidence.argsort(descending=True, stable=True)
    confident = rows[order[: max(1, round(CONFIDENT * len(rows)))]]
    found = {
        "images": len(rows),
        "share_near": share(near[rows]),
        "median_degrees": degrees.quantile(0.5).item(),
        "share_turned_round": share(degrees > TURNED_ROUND),
        "share_either_end_near": share(estimates.either_end[rows] <= truth.near),
        "share_confident_near": share(near[confident]),
        "mean_confidence": confidence.mean().item(),
        "highest_confidence": confidence.amax().item(),
        "calibration_error": calibration_error(confidence, near[rows]),
        "iou_step1": estimates.step1_iou[rows].mean().item(),
        "iou_step2": estimates.iou[rows].mean().item(),
        "share_near_step1": share(estimates.step1_degrees[rows] <= truth.near),
        "share_any_near": share(estimates.any_degrees[rows] <= truth.near),
    }
    if estimates.shape_iou is not None:
        found["iou_shapes"] = estimates.shape_iou[rows].mean().item()
    if truth.azimuth is None or truth.sure is None:
        return found
    # Labels also allow figures by sector, and of the views that leave no doubt
    found["share_sure_near"] = share(near[rows[truth.sure[rows]]])
    sectors = {sector: rows[truth.azimuth[rows] == sector] for sector in SECTORS}
    found["sectors"] = {
        str(sector): {"images": len(some), "share_near": share(near[some])}
        for sector, some in sectors.items()
        if len(some)
    }
    return found


def share(hits: Tensor) -> float | None:
    """Returns the share of True, None of nothing."""
    return hits.double().mean().item() if len(hits) else None


def table(results: Mapping[str, Mapping[str, Figures]]) -> Iterator[str]:
    """Yields the lines of a table of one half, from figures by collection and variant."""
    yield f"{'':30}" + "".join(f"{heading:>9}" for heading in _COLUMNS)
    for collection, variants in results.items():
        for variant, found in variants.items():
            values = ((found.get(name), kind) for name, kind in _COLUMNS.values())
            words = ("" if value is None else format(value, kind) for value, kind in values)
            label = collection if variant == "all" else f"  {variant}"
            yield f"{label:30}" + "".join(f"{word:>9}" for word in words)


def sector_table(results: Mapping[str, Mapping[str, Figures]]) -> Iterator[str]:
    """Yields the shares of right azimuths by labeled sector, of the collections that have labels."""
    labeled = [
        (collection if variant == "all" else f"  {variant}", found["sectors"])
        for collection, variants in results.items()
        for variant, found in variants.items()
        if "sectors" in found
    ]
    if labeled:
        yield f"{'right by sector (images)':30}" + "".join(f"{sector:>11}" for sector in SECTORS)
    for label, sectors in labeled:
        words = (
            f"{sectors[s]['share_near']:.0%} ({sectors[s]['images']})" if s in sectors else ""
            for s in map(str, SECTORS)  # JSON knows no other keys
        )
        yield f"{label:30}" + "".join(f"{word:>11}" for word in words)
