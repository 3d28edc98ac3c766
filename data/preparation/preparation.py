"""Prepares a collection: photographs and masks become cache/<name>/detections.json and collection.json."""

import difflib
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from data.cache import template_files
from data.cache.folders import Record, write_record
from data.cache.label_files import save_labels
from data.cache.pose_files import hypotheses_path, poses_path
from data.cache.storage import belongs_to
from data.collection import Collection, open_collection, word_about
from data.definitions import (
    CATEGORIES,
    MODES,
    check_views,
    check_word,
    describe_views,
    expand_dataset,
    usual_views,
)
from data.detections import Detections, detections_path, save_detections
from data.labels.individuals import with_individuals
from data.labels.reading import LabelSets, read_labels
from data.multiview import arranging
from data.preparation import benchmark_datasets, detectors, inspection, masking, saliency
from data.preparation.mask_reader import open_masks
from data.preparation.options import MIN_AREA, MIN_AREA_MADE, PrepareConfig
from data.preparation.photographs import Inspection, inspect_all, with_frequencies
from utils.cli import UserError

logger = logging.getLogger(__name__)

_NAMED_IN_ERROR = 3  # unusable images that an error lists
_LOGGED = 10  # findings of a kind that are logged one by one


def prepare_each(config: PrepareConfig) -> None:
    """Prepares one data set, or the 13 default ones; those that fail are reported at the end.

    Raises:
        UserError: as `prepare`, of the first that failed.
    """
    names = expand_dataset(config.dataset)
    if len(names) == 1:
        prepare(config)
        return
    # One data set that fails must not keep the others from being prepared
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
        UserError: if the collection is missing, category, views or template are invalid, or an
            image is unusable; nothing is written then.
    """
    if benchmark_datasets.is_official(config.dataset):
        benchmark_datasets.arrange(config.dataset, config.source)
    else:
        arranging.arrange(config.dataset, config.source, config.category)
    collection = open_collection(config.dataset)
    facts = choose_facts(collection, config)
    category = facts.category
    labels = read_labels(collection.name, collection.root, collection.images)
    objectless = _detect_masks(collection, category, config)

    # Read everything, so that all that is wrong is known at once
    masks = open_masks(collection, config.masks)
    result = inspect_all(masks, config.min_area or MIN_AREA)
    result.left_out |= objectless
    if config.check:
        inspection.report(collection, result)
        return None
    if result.left_out and not (config.skip_invalid and result.items):
        raise UserError(_describe(collection, result.left_out))

    # Write, the detections last, since they are what the stages look for
    detections = Detections(config.dataset, category, with_frequencies(result.items))
    _warn_about_stale_poses(detections)
    labels = with_individuals(labels, detections)
    write_record(config.dataset, facts, **_facts(config, detections, result))
    save_labels(config.dataset, labels)
    save_detections(detections)
    _report(collection, detections, result)
    _report_labels(labels, detections)
    _report_facts(config.dataset, facts)
    return detections


def _detect_masks(collection: Collection, category: str, config: PrepareConfig) -> dict[Path, str]:
    """Writes the masks that are missing, if the options say how; returns why some stay empty."""
    detector = _choose_detector(collection, category, config)
    if detector is None:
        return {}
    limits = masking.Limits(config.min_area or MIN_AREA_MADE, config.min_score)
    return masking.write_masks(collection, detector, limits, config.replace_masks)


def _choose_detector(
    collection: Collection, category: str, config: PrepareConfig
) -> masking.Detector | None:
    """Returns the source of masks that the options name; UserError for more than one."""
    # Several at once would hide which of them made a mask
    sources = {
        "--annotations": config.annotations,
        "--mask_rcnn": config.mask_rcnn,
        "--mask_model": config.mask_model,
    }
    given = [option for option, path in sources.items() if path is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: take one of them, and the next in another run.")
    # Annotations may have another name for the category
    wanted = (config.annotation_category or category).strip().lower()
    if config.annotations is not None:
        return detectors.annotation_detector(config.annotations, collection.images, wanted)
    if config.mask_rcnn is not None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return detectors.mask_rcnn_detector(config.mask_rcnn, device, wanted)
    if config.mask_model is not None:
        return saliency.saliency_detector(
            config.mask_model, config.mask_size, config.mask_mean, config.mask_std
        )
    return None


def choose_facts(collection: Collection, config: PrepareConfig) -> Record:
    """Returns category, views and template as the options say, else the collection, else the category.

    Raises:
        UserError: if one of them is invalid.
    """
    # Options take precedence over the collection, and that over the defaults of the category
    category = _choose_category(collection, config.category)
    views = collection.views or usual_views(category)
    if config.views is not None:
        views = check_views(config.views, "--views")
    borrowed = config.template_of or collection.template_of
    if borrowed is not None:
        where = "--template_of" if config.template_of else f"{collection.root}/collection.json"
        template_files.check_lender(borrowed, where)
    return Record(category, views, borrowed or category)


def _choose_category(collection: Collection, option: str | None) -> str:
    """Returns the category of the option or of the collection; UserError if they differ."""
    category = option or collection.category
    if category is None:
        raise UserError(
            f"{collection.root}/ does not say what it shows. Add --category with a word, if possible "
            f"one that is known: {', '.join(CATEGORIES)}."
        )
    check_word(category, "--category", "category")
    if collection.category not in (None, category):
        raise UserError(
            f"--category {category}: {collection.root}/ is a collection of category "
            f"{collection.category}. Leave the option out."
        )
    return category


def _describe(collection: Collection, left_out: dict[Path, str]) -> str:
    first = list(left_out.items())[:_NAMED_IN_ERROR]
    listed = "; ".join(f"{image.relative_to(collection.root)} {why}" for image, why in first)
    more = "; ..." if len(left_out) > len(first) else ""
    return (
        f"{collection.root}/: {len(left_out)} of {len(collection.images)} images cannot be used: "
        f"{listed}{more}. Repair or remove them, or leave them out with --skip_invalid."
    )


def _facts(config: PrepareConfig, detections: Detections, result: Inspection) -> dict[str, object]:
    """Returns the entries of collection.json that no stage reads but people do."""
    left_out = [{"image": path.as_posix(), "reason": why} for path, why in result.left_out.items()]
    return {
        "num_images": len(detections),
        "min_area": config.min_area or MIN_AREA,
        "part_frequencies": _part_frequencies(detections),
        "left_out": left_out,
        "findings": {
            path.as_posix(): [finding.text for finding in findings]
            for path, findings in result.findings.items()
        },
        "fingerprint": detections.fingerprint,
    }


def _part_frequencies(detections: Detections) -> dict[str, float]:
    parts = (part for item in detections.items for part in item.parts)
    return dict(sorted({part.name: part.frequency for part in parts}.items()))


def _warn_about_stale_poses(detections: Detections) -> None:
    """Says that poses of other detections will be refused, if there are any."""
    paths = [
        path(detections.dataset, mode) for path in (hypotheses_path, poses_path) for mode in MODES
    ]
    made = [x for x in paths if x.exists() and not belongs_to(x, detections.fingerprint)]
    if made:
        logger.warning(
            "The category, images or masks have changed since these were made: %s. Estimate the poses again.",
            ", ".join(map(str, made)),
        )


def _report(collection: Collection, detections: Detections, result: Inspection) -> None:
    for image, reason in result.left_out.items():
        logger.warning("left out: %s %s", image, reason)
    _report_findings(result)
    if collection.ignored:
        logger.warning("%s", word_about(collection.ignored))
    frequencies = _part_frequencies(detections).items()
    parts = ", ".join(f"{name} {frequency:.0%}" for name, frequency in frequencies) or "none"
    logger.info(
        "%s: %d images of category %s, %d left out; parts: %s",
        detections_path(detections.dataset),
        len(detections),
        detections.category,
        len(result.left_out),
        parts,
    )


def _report_labels(sets: LabelSets, detections: Detections) -> None:
    """Logs how many labels each set has, and how many photographs lack one."""
    paths = {item.image_path for item in detections.items}
    for name, labels in sets.items():
        found = [labels[path] for path in paths if path in labels]
        without = f", {len(paths) - len(found)} images have none" if len(found) < len(paths) else ""
        logger.info("label set %s: %d labels%s", name, len(set(found)), without)


def _report_facts(dataset: str, facts: Record) -> None:
    """Logs what later stages will assume about a category that is not known here, and what it lacks."""
    # A misspelled category looks like a new one, so that a similar name is suggested
    if facts.category not in CATEGORIES:
        near = difflib.get_close_matches(facts.category, CATEGORIES, n=1)
        logger.info(
            "%s is none of the known categories%s, so its views are taken as %s (see --views)",
            facts.category,
            f" (did you mean {near[0]}?)" if near else "",
            describe_views(facts.views),
        )
    if facts.template_of != facts.category:
        logger.info("templates are borrowed from %s", facts.template_of)
    elif not template_files.has_templates(facts.category) and facts.category not in CATEGORIES:
        logger.warning("%s", template_files.ways_to_templates(facts.category, dataset))


def _report_findings(result: Inspection) -> None:
    """Logs what is odd about usable photographs, of each kind not more than a screen takes."""
    counts: Counter[str] = Counter()
    for image, findings in result.findings.items():
        for finding in findings:
            counts[finding.kind] += 1
            if counts[finding.kind] <= _LOGGED:
                logger.warning("%s %s", image, finding.text)
    hidden = sum(max(count - _LOGGED, 0) for count in counts.values())
    if counts:
        more = f"{hidden} more findings; " if hidden else ""
        logger.warning("%s--check says what each means, and draws the masks", more)
