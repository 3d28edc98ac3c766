"""What to think of the result of a stage, in one line: good, doubtful and why, or a figure."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.cache.folders import cache_folder
from pipeline.all_stages.stages import Config
from pipeline.poses.report import FITTING, LEAST_CONFIDENCE
from utils.files import read_json
from utils.run_directory import RunDirectory

logger = logging.getLogger(__name__)

ENOUGH = 100  # photographs that show a category from all sides
KEPT = 0.5  # share of the photographs
# Outlines of templates under the estimated poses, or of the shapes that step 2 has fitted: these overlap by .81 to
# .95 where 88 to 100 % of the poses were right, by .75 and .79 on horses, where 85 % were (docs/results.md).
# Shapes cover cars by .91 even if they are fitted to the template of a bird, but confidence is .46 then
OVERLAP, CONFIDENCE = FITTING, LEAST_CONFIDENCE
RECONSTRUCTED = 0.75  # the same, of predicted meshes


def verdict(title: str, config: Config) -> str:
    """Returns the verdict of a stage that has succeeded."""
    return _VERDICTS[title](config)


def _prepared(config: Config) -> str:
    number = _json(config, "collection.json")["num_images"]
    return _judged(number >= ENOUGH, f"{number} photographs", f"{ENOUGH} or more")


def _posed(config: Config) -> str:
    kept, found = _kept(figures := _poses(config, "step1"))
    overlap = figures["mean_iou"]
    good = kept >= KEPT and overlap >= OVERLAP
    return _judged(good, f"{found}, outlines overlap {overlap:.2f}", f"{KEPT:.0%} and {_ADVICE}")


def _chosen(config: Config) -> str:
    kept, found = _kept(figures := _poses(config, "step2"))
    overlap, confidence = figures["mean_iou"], figures["mean_confidence"]
    found += f", confidence {confidence:.0%}, outlines overlap {overlap:.2f}"
    # Without shapes of their own, objects have that of the template
    fitted = figures.get("mean_shape_iou", overlap)
    if "mean_shape_iou" in figures:
        found += f", of fitted shapes {fitted:.2f}"
    good = kept >= KEPT and confidence >= CONFIDENCE and fitted >= OVERLAP
    return _judged(good, found, f"{KEPT:.0%}, {CONFIDENCE:.0%} and {_ADVICE}")


_ADVICE = f"{OVERLAP:.2f}; see the section about poses in TRAINING.md"


def _poses(config: Config, step: str) -> dict[str, Any]:
    return _json(config, "metrics.json")[step][config.mode]


def _kept(figures: dict[str, Any]) -> tuple[float, str]:
    """Returns the share of the photographs that a step has kept, and says so."""
    kept, images = figures["kept"], figures["images"]
    return kept / images, f"{kept} of {images} photographs kept"


def _evaluated(config: Config) -> str:
    overlap = _latest(Path("checkpoints_recon") / config.name, "soft_iou")["iou"]
    text = f"{RECONSTRUCTED:.2f}; more steps, or photographs unlike the template"
    return _judged(overlap >= RECONSTRUCTED, f"outlines of the meshes overlap {overlap:.2f}", text)


def _pseudo(config: Config) -> str:
    number = len(list(cache_folder(config.dataset).glob(f"pseudogt_*_{config.mode}/*.npz")))
    return _judged(number >= ENOUGH / 2, f"{number} textures to learn from", f"{ENOUGH // 2}")


def _measured(config: Config) -> str:
    name = "fid" if config.preset == "paper" else "proxy"
    distance = _latest(Path("checkpoints_gan") / config.name, name)[name]
    note = "FID" if name == "fid" else "distance in features of an untrained network, not FID,"
    return f"figure: {note} {distance:.2f}, to compare runs on the same photographs"


def _exported(config: Config) -> str:
    return f"look at output/{config.name}.png"


def _judged(good: bool, found: str, expected: str) -> str:
    return f"good: {found}" if good else f"doubtful: {found}, expected {expected}"


def _json(config: Config, name: str) -> Any:
    return read_json(cache_folder(config.dataset) / name, "Prepare the collection again.")


def _latest(folder: Path, metric: str) -> dict[str, Any]:
    return next(x for x in reversed(RunDirectory(folder).records()) if metric in x)


_VERDICTS: dict[str, Callable[[Config], str]] = {
    "preparation": _prepared,
    "poses, step 1": _posed,
    "poses, step 2": _chosen,
    "reconstruction": lambda config: f"see the pictures in checkpoints_recon/{config.name}/",
    "reconstruction, evaluated": _evaluated,
    "pseudo-ground-truth": _pseudo,
    "generator": lambda config: f"see the pictures in checkpoints_gan/{config.name}/",
    "generator, evaluated": _measured,
    "exported meshes": _exported,
}
