"""Masks by a saliency network in ONNX, such as IS-Net, BiRefNet or U²-Net: a map of what stands out."""

import importlib
import json
import logging
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.special import expit

from data.image_files import read_photograph
from data.preparation.masking import Candidate, Detector, NoObjectError
from data.run_lengths import encode_mask
from utils.cli import UserError
from utils.digests import file_digest
from utils.files import require_file

logger = logging.getLogger(__name__)

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ISNET = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
_ISNET_SIDE = 1024  # of its input; BiRefNet, of the same size, has attention, which is a softmax
_PIECE = 0.05  # of the largest piece; smaller ones are specks
_SLACK = 1e-3  # beyond [0, 1]; maps beyond it are logits
_NEIGHBORS = np.ones((3, 3))


class Normalization(NamedTuple):
    """What a network expects of its input.

    Attributes:
        height: pixels.
        width: pixels.
        mean: of red, green and blue in [0, 1], subtracted.
        std: of the same, divided by.
    """

    height: int
    width: int
    mean: Sequence[float]
    std: Sequence[float]


def saliency_detector(
    path: Path,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Detector:
    """Returns the pieces of what a saliency network finds in photographs, as objects of no category.

    Args:
        path: the network; one input (1, 3, h, w), and a map (1, 1, h, w) as the first output, as
            probabilities or logits.
        size: side of the input, where the file does not fix it.
        mean: of red, green and blue in [0, 1]; default as the file says, else as ImageNet.
        std: likewise.

    Raises:
        UserError: if onnxruntime or the file is missing, or the file holds no such network.
    """
    session = _open_network(path)
    settings = _normalization(session, path, size, mean, std)
    name = session.get_inputs()[0].name
    dtype = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    logger.info(
        "%s: input of %d x %d pixels, mean %s, std %s (if not: --mask_size, --mask_mean, --mask_std)",
        path,
        settings.width,
        settings.height,
        *(", ".join(f"{x:g}" for x in values) for values in settings[2:]),
    )

    def detect(image: Path) -> list[Candidate]:
        photograph = read_photograph(image)
        pixels = _input_of(photograph, settings).astype(dtype)
        try:
            output = session.run(None, {name: pixels})[0]
        except Exception as error:  # the types of onnxruntime have no common ancestor
            raise UserError(f"{path}: the network fails with {_first_line(error)}.") from None
        height, width = photograph.shape[:2]
        return _pieces(_map_of(output, path, (height, width)))

    # Other settings make other masks
    settled = json.dumps([settings, file_digest(path)])
    return Detector(detect, "object", f"saliency {settled}")


def _open_network(path: Path) -> Any:
    """Returns onnxruntime's session of a file."""
    # Only this option needs the package
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise UserError(
            "--mask_model needs onnxruntime, which is not installed. Install it with: "
            "pip install -r requirements-masks.txt"
        ) from None
    require_file(path, "Name a saliency network in ONNX, such as isnet-general-use.onnx.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    # A GPU, if this build of onnxruntime supports one
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # as above
        raise UserError(
            f"{path} is no network that onnxruntime reads ({_first_line(error)}). Get it again."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _normalization(
    session: Any,
    path: Path,
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Normalization:
    """Returns what the options, else the file, else the usual networks of its kind say."""
    # One picture in, with three channels before height and width
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if (
        len(inputs) != 1
        or len(shape) != 4
        or (shape[1] not in (3, "3") and isinstance(shape[1], int))
    ):
        raise UserError(
            f"{path}: expected one input (1, 3, h, w), got {[i.shape for i in inputs]}."
        )
    # The size: fixed by the file, noted in it, or given
    fixed = [x if isinstance(x, int) and x > 0 else None for x in shape[2:]]
    if size is not None and set(fixed) - {size, None}:
        got = " x ".join(map(str, fixed[::-1]))
        raise UserError(f"--mask_size {size}: {path} has an input of {got} pixels. Leave it out.")
    noted = session.get_modelmeta().custom_metadata_map
    noted_size = _numbers(noted, ("size", "input_size", "imgsz"), 1, path)
    side = size or (int(noted_size[0]) if noted_size else None)
    height, width = (x or side for x in fixed)
    if height is None or width is None:
        raise UserError(f"{path} does not fix the size of its input. Add --mask_size, often 1024.")
    # Mean and deviation, likewise
    isnet = height == _ISNET_SIDE and not _mentions(path, b"Softmax")
    usual_mean, usual_std = _ISNET if isnet else _IMAGENET
    mean = mean or _numbers(noted, ("mean", "image_mean"), 3, path) or usual_mean
    std = std or _numbers(noted, ("std", "image_std"), 3, path) or usual_std
    return Normalization(height, width, mean, std)


def _mentions(path: Path, operation: bytes) -> bool:
    """Returns whether a network has an operation, whose name the file spells out."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(operation) >= 0


def _numbers(
    noted: dict[str, str], keys: Sequence[str], count: int, path: Path
) -> list[float] | None:
    """Returns numbers that a file's notes hold under one of some keys; None without any."""
    text = next((noted[key] for key in keys if key in noted), None)
    if text is None:
        return None
    try:
        values = [float(word) for word in text.strip("[]() ").replace(",", " ").split()]
    except ValueError:
        values = []
    # A single number stands for all channels
    values = values * count if len(values) == 1 else values
    if len(values) < count or not np.isfinite(values).all():
        raise UserError(f"{path}: its notes say {text!r}, expected {count} numbers.")
    return values[:count]


def _input_of(photograph: np.ndarray, settings: Normalization) -> np.ndarray:
    """Returns a photograph (h, w, 3) uint8 as the input (1, 3, height, width) float32."""
    picture = Image.fromarray(photograph)
    picture = picture.resize((settings.width, settings.height), Image.Resampling.BILINEAR)
    scaled = np.asarray(picture, np.float32) / 255
    scaled = (scaled - np.array(settings.mean, np.float32)) / np.array(settings.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)


def _map_of(output: Any, path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Returns the map of a network in the size (h, w) of the photograph, in [0, 1]."""
    # The map alone, without the axes of batch and channel
    values = np.asarray(output, np.float32)
    values = values.reshape(values.shape[-2:]) if values.ndim >= 2 and values.size else values
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UserError(f"{path}: expected a map (1, 1, h, w), got {np.shape(output)} or NaN.")
    # Values outside of [0, 1] are logits
    if values.min() < -_SLACK or values.max() > 1 + _SLACK:
        values = expit(values)
    picture = Image.fromarray(values)
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)).clip(0, 1)


def _pieces(saliency: np.ndarray) -> list[Candidate]:
    """Returns the connected pieces above 1/2 of a map (h, w), each with its mean as the score."""
    labels, count = ndimage.label(saliency > 0.5, _NEIGHBORS)  # type: ignore[misc]
    if not count:
        raise NoObjectError(f"shows nothing that stands out: at most {saliency.max():.2f} of 1")
    # Specks are left out, as of no object
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel())[1:]
    scores = ndimage.mean(saliency, labels, numbers)
    large = numbers[sizes >= _PIECE * sizes.max()]
    return [Candidate("object", float(scores[n - 1]), encode_mask(labels == n)) for n in large]
