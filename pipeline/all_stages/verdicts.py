"""What to think of the result of a stage, in one line: good, doubtful and why, or a figure."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.cache.folders import cache_folder
from pipeline.all_stages.stages import Config
from utils.files import read_json
from utils.run_directory import RunDirectory

logger = logging.getLogger(__name__)

ENOUGH = 100  # photographs that show a category from all sides
KEPT = 0.5  # share of the photographs
OVERLAP = 0.8  # of outlines, of templates under the estimated poses
RECONSTRUCTED = 0.75  # the same, of predicted meshes


def verdict(title: str, config: Config) -> str:
    """Returns the verdict of a stage that has succeeded."""
    return _VERDICTS[title](config)


def _prepared(config: Config) -> str:
    number = _json(config, "collection.json")["num_images"]
    return _judged(number >= ENOUGH, f"{number} photographs", f"{ENOUGH} or more")


def _posed(step: str) -> Callable[[Config], str]:
    def judge(config: Config) -> str:
        figures = _json(config, "metrics.json")[step][config.mode]
        kept, overlap = figures["kept"] / figures["images"], figures["mean_iou"]
        return _judged(
            kept >= KEPT and overlap >= OVERLAP,
            f"{figures['kept']} of {figures['images']} photographs kept, outlines overlap {overlap:.2f}",
            f"{KEPT:.0%} and {OVERLAP:.2f}; see the section about poses in TRAINING.md",
        )

    return judge


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
    "poses, step 1": _posed("step1"),
    "poses, step 2": _posed("step2"),
    "reconstruction": lambda config: f"see the pictures in checkpoints_recon/{config.name}/",
    "reconstruction, evaluated": _evaluated,
    "pseudo-ground-truth": _pseudo,
    "generator": lambda config: f"see the pictures in checkpoints_gan/{config.name}/",
    "generator, evaluated": _measured,
    "exported meshes": _exported,
}
