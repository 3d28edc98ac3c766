"""The options of the preparation and their thresholds; loads no more than a parser may."""

from dataclasses import dataclass
from pathlib import Path

from data.mask_styles import Choice

MIN_AREA = 256  # pixels of a usable mask
MIN_AREA_MADE = 96 * 96  # pixels of one that a network or an annotation tool made
MIN_SCORE = 0.9  # least confidence of detected objects


@dataclass(frozen=True)
class PrepareConfig:
    """Options of the preparation; the parser holds their defaults."""

    dataset: str
    category: str | None
    min_area: int | None
    skip_invalid: bool
    source: tuple[Path, ...] = ()
    annotations: Path | None = None
    mask_rcnn: Path | None = None
    check: bool = False
    masks: Choice = "auto"
    min_score: float = MIN_SCORE
    replace_masks: bool = False
    annotation_category: str | None = None
    mask_model: Path | None = None
    mask_size: int | None = None
    mask_mean: tuple[float, ...] | None = None
    mask_std: tuple[float, ...] | None = None
    views: tuple[str, ...] | None = None
    template_of: str | None = None
