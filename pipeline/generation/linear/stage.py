"""Fits the statistical generator: means and modes of displacement maps and of completed textures.

Minutes on any machine, without training. The number of modes is the one under which held-out maps
are the most likely. Textures are analyzed at 64 texels with what no photograph shows left out; then each is completed,
and mean and modes of all resolutions are regressions of the completed textures on the codes found.
"""

import logging
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from data.pseudo_ground_truth import PseudoGroundTruth, UVSample
from geometry.uv_maps import fold, half_map, symmetric_extension
from pipeline.generation import model_file, pictures, sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.linear import modes
from pipeline.generation.linear.generator import LinearGenerator, design
from rendering import rasterizer
from rendering.pull_push import pull_push
from utils import distributed
from utils import model_file as files
from utils.cli import UserError
from utils.pictures import save_image
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

COUNTS = (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64)  # of modes
VALIDATE_EVERY = 5  # photographs, of which one tells the number of modes
_SIZE = 64  # texels in which textures are analyzed
_DIVIDING = 1e-6  # photographs
_FEWEST = 5  # photographs


def fit(device: torch.device, config: GenerationConfig) -> None:
    """Fits a model and writes it to its folder, with a picture of samples.

    Raises:
        UserError: if there is no pseudo-ground-truth, or too little, or the folder holds a GAN.
    """
    rasterizer.set_backend(config.rasterizer)
    configure_logging()
    model_file.refuse_another_kind(config)
    dataset = sampling.open_dataset(config)
    require_enough(dataset)
    # One process is enough
    if distributed.is_main():
        configure_logging(config.folder / "log.txt")
        logger.info("fitting %s: %d samples", config.name, len(dataset))
        generator = make_generator(dataset, sampling.num_classes(config, dataset))
        config = replace(config, model=replace(config.model, latent_dim=generator.latent_dim))
        description = model_file.describe(dataset, config)
        model_file.save_model(config.folder, generator, description, 0)
        template = sampling.make_sphere(config.model).to(device)
        shown = pictures.Shown(template, dataset, config)
        picture = pictures.draw_samples(generator.to(device).eval(), shown, 0)
        save_image(config.folder / "samples.png", picture)
        logger.info("wrote %s and samples.png beside it", config.folder / files.NAME)
    distributed.barrier()


def require_enough(dataset: PseudoGroundTruth) -> None:
    """Raises a UserError if there are too few photographs to tell modes from."""
    if len(dataset) < _FEWEST:
        raise UserError(
            f"Means and modes need the pseudo-ground-truth of {_FEWEST} photographs or more, got "
            f"{len(dataset)}."
        )


def make_generator(dataset: PseudoGroundTruth, num_classes: tuple[int, ...]) -> LinearGenerator:
    """Fits the generator to all items of the pseudo-ground-truth."""
    known = design(
        dataset.metadata.category if num_classes else None, num_classes, len(dataset)
    ).double()
    shapes, textures, seen = _small_maps(dataset)
    ones = torch.ones(shapes.shape[:2], dtype=torch.double)
    shape_maps, texture_maps = modes.Maps(shapes, ones, known), modes.Maps(textures, seen, known)
    # Both by the same method; only textures have gaps
    side = dataset.mesh_resolution
    fitted_shapes = _fit("shape", shape_maps)
    basis = fitted_shapes.basis.movedim((0, 1), (2, 1)).unflatten(2, (side, side // 2))
    fitted_textures = _fit("texture", texture_maps)
    texture_basis = _full_textures(dataset, texture_maps, fitted_textures)
    return LinearGenerator(basis.float(), texture_basis, num_classes)


def _fit(name: str, maps: modes.Maps) -> modes.Modes:
    count, scores = modes.choose_count(maps, COUNTS, VALIDATE_EVERY)
    tried = ", ".join(f"{number}: {score:.3f}" for number, score in scores.items())
    logger.info("log-likelihood of a held-out value by number of %s modes: %s", name, tried)
    fitted = modes.fit(maps, count)
    strengths = fitted.basis[..., maps.known.shape[1] :].square().sum((0, 1))
    total = strengths.sum() + fitted.variance * fitted.basis[..., 0].numel()
    logger.info(
        "%d %s modes, which explain %.0f %% of the variance",
        count,
        name,
        100 * strengths.sum() / total,
    )
    return fitted


def _small_maps(dataset: PseudoGroundTruth) -> tuple[Tensor, Tensor, Tensor]:
    """Returns displacement maps (N, S S/2, 3), textures (N, 2048, 3), and where these were seen (N, 2048)."""
    shapes, textures, seen = [], [], []
    for row in progress(range(len(dataset)), description="maps"):
        item = dataset[row]
        shapes.append(half_map(item.mesh).flatten(1).T)
        colors, weights = _folded(item)
        step = colors.shape[-2] // _SIZE
        mass = F.avg_pool2d(weights, step)
        means = F.avg_pool2d(colors * weights, step) / mass.clamp(min=1e-6)
        shown = (mass > 0.5).float()
        textures.append((means * shown)[0].flatten(1).T)
        seen.append(shown.flatten())
    return tuple(torch.stack(maps).double() for maps in (shapes, textures, seen))  # type: ignore[return-value] - three


def _folded(item: UVSample) -> tuple[Tensor, Tensor]:
    """Returns the half texture (1, 3, R, R/2) that an item shows, and where it does (1, 1, R, R/2)."""
    alpha = item.alpha[None]
    # Texels at the outline have the color of the background, too: one texel around is left out
    seen = -F.max_pool2d(-(alpha > 0.5).float(), 3, stride=1, padding=1)
    return fold(item.texture[None] / alpha.clamp(min=0.5), seen)


def _full_textures(dataset: PseudoGroundTruth, maps: modes.Maps, fitted: modes.Modes) -> Tensor:
    """Returns mean and modes (P + K, 3, R, R/2) of the textures, each completed by what was fitted."""
    posterior = modes.expect(maps, fitted)
    size = fitted.basis.shape[2]
    basis = fitted.basis.float().permute(2, 1, 0).unflatten(2, (_SIZE, _SIZE // 2))
    total = None
    for row in progress(range(len(dataset)), description="completing textures"):
        factors = posterior.factors[row].float()
        colors, seen = _folded(dataset[row])
        expected = torch.einsum("k,kchw->chw", factors, basis)[None]
        completed = complete(colors, seen, expected)
        product = factors.view(-1, 1, 1, 1) * completed
        total = product if total is None else total.add_(product)
    assert total is not None
    # A regression on the factors; what several labels explain alike is divided among them
    gram = posterior.moments.sum(0) + _DIVIDING * torch.eye(size, dtype=torch.double)
    return torch.linalg.solve(gram, total.double().flatten(1)).view(total.shape).float()


def complete(colors: Tensor, seen: Tensor, expected: Tensor) -> Tensor:
    """Fills the gaps of half textures by what is expected there, without seams.

    Args:
        colors: (B, 3, R, R/2).
        seen: (B, 1, R, R/2) 0 or 1.
        expected: (B, 3, r, r/2) a prediction, at any resolution.
    """
    finer = F.interpolate(expected, colors.shape[-2:], mode="bilinear", align_corners=False)
    # How the prediction fails where it can be compared spreads into the gaps
    wrong, weights = symmetric_extension((colors - finer) * seen), symmetric_extension(seen)
    return finer + half_map(pull_push(wrong, weights, around=True))
