"""Where outlined objects come from: annotation files of people and tools, and Mask R-CNN."""

import hashlib
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from data.image_files import photograph_size, read_orientation, read_photograph
from data.preparation.annotation_files import Annotation, AnnotationSet, read_annotations
from data.preparation.masking import Candidate, Detector, NoObjectError
from data.preparation.outlines import MALFORMED, NoOutlineError, decode_outline
from data.preparation.picture_names import match_pictures
from data.run_lengths import encode_mask
from utils import checkpoint
from utils.cli import UserError
from utils.digests import file_digest

logger = logging.getLogger(__name__)


def annotation_detector(source: Path, images: tuple[Path, ...], category: str) -> Detector:
    """Returns the objects that a file or folder of annotations outlines.

    Args:
        source: file or folder.
        images: photographs of the collection.
        category: name of the wanted objects in the file.

    Raises:
        UserError: if the source is missing or of no kind that is understood.
    """
    found = read_annotations(source)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in found.kinds.items())
    logger.info("%s: %s of %d pictures", source, kinds, len(found.pictures))
    if found.strays:
        logger.warning("%s: %d annotations belong to no picture", source, found.strays)
    # A photograph may have several names in the file, or none that is certain
    names, ambiguous = match_pictures(images, list(found.pictures))

    def detect(image: Path) -> list[Candidate]:
        if image not in names:
            raise NoObjectError(ambiguous.get(image) or _why_absent(found))
        annotations = [entry for name in names[image] for entry in found.pictures[name]]
        return _candidates(image, annotations, found, category)

    digest = hashlib.sha256(f"{_digest_of(source)} {category}".encode()).hexdigest()
    return Detector(detect, category, f"annotations {digest}", by_people=True)


def _digest_of(source: Path) -> str:
    files = sorted(path for path in source.rglob("*") if path.is_file()) or [source]
    return " ".join(map(file_digest, files))


def _why_absent(found: AnnotationSet) -> str:
    example = next((f", such as {name}" for name in found.pictures), "")
    return f"is not among the {len(found.pictures)} pictures of {found.source}{example}"


def _candidates(
    image: Path, annotations: list[Annotation], found: AnnotationSet, category: str
) -> list[Candidate]:
    """Returns the objects of a photograph; NoObjectError if none of the category has an outline."""
    if not annotations:
        raise NoObjectError(f"has no annotation in {found.source}")
    wanted = [entry for entry in annotations if entry.category in (None, category)]
    if not wanted:
        names = Counter(str(entry.category) for entry in annotations)
        listed = ", ".join(f"{name} ({count})" for name, count in names.most_common(5))
        raise NoObjectError(
            f"shows no {category} in {found.source}, but {listed}: "
            f'--annotation_category "{names.most_common(1)[0][0]}" takes those'
        )

    # Objects of other categories are decoded too, since the wanted one may touch them
    candidates, problems = [], []
    shape, orientation = photograph_size(image), read_orientation(image)
    for entry in annotations:
        try:
            candidates.append(_decode(entry, shape, orientation))
        except NoOutlineError as error:
            problems.append((entry, f"has {error} in {found.source} ({entry.record})"))
        except MALFORMED as error:
            problems.append((entry, f"has an outline in {found.source} that cannot be used: "
                             f"{entry.record}: {error}. Export it again"))  # fmt: skip

    # What is wrong with the others matters only where nothing is left
    if not any(candidate.category in (None, category) for candidate in candidates):
        raise NoObjectError(next(t for e, t in problems if e.category in (None, category)))
    return candidates


def _decode(entry: Annotation, shape: tuple[int, int], orientation: int) -> Candidate:
    """Returns the object of an annotation; an error of `MALFORMED` for a damaged one."""
    if entry.problem is not None:
        raise ValueError(entry.problem)
    outline = entry.outline
    if entry.relative and outline:
        outline = (np.reshape(outline, (-1, 2)) * (shape[1], shape[0])).ravel().tolist()
    mask = decode_outline(outline, entry.size, shape, orientation)
    return Candidate(entry.category, entry.score, encode_mask(mask), entry.crowd)


def mask_rcnn_detector(weights: Path, device: torch.device, category: str) -> Detector:
    """Returns what torchvision's Mask R-CNN (ResNet-50 FPN, trained on COCO) sees in photographs.

    Raises:
        UserError: if the weights are missing or do not fit, or the network knows no such category.
    """
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

    labels = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if category not in labels:
        known = ", ".join(label for label in labels if label not in ("__background__", "N/A"))
        raise UserError(
            f"--mask_rcnn: the network knows no {category!r}. If it may take the objects for another "
            f"class, add --annotation_category with one of: {known}."
        )
    network = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=len(labels), box_score_thresh=0.5
    )
    remedy = "Get https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth."
    state = checkpoint.load(weights, remedy=remedy)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{weights} does not hold the weights of Mask R-CNN. {remedy}") from None
    # Only for inference
    network.eval().requires_grad_(False).to(device)

    def detect(path: Path) -> list[Candidate]:
        picture = torch.from_numpy(read_photograph(path)).permute(2, 0, 1).float() / 255
        (found,) = network([picture.to(device)])
        names = [labels[int(label)] for label in found["labels"]]
        runs = map(encode_mask, (found["masks"][:, 0] > 0.5).cpu().numpy())
        return [Candidate(*x) for x in zip(names, found["scores"].tolist(), runs, strict=True)]

    return Detector(detect, category, f"maskrcnn {file_digest(weights)} {category}")
