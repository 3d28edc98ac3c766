"""Generated meshes: latent codes, what they are conditional on, and renderings.

A sample is a function of the seed and its own number, never of the batch that it is made in.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from data.cache import pseudo_files
from data.cache.folders import class_label
from data.cache.label_files import Labels, load_labels, rows_with
from data.definitions import expand_dataset, folder_names
from data.pseudo_ground_truth import PseudoGroundTruth, UVSample, held_out_rows
from geometry import camera
from geometry.camera import Pose
from geometry.sphere_mesh import SphereMesh
from models.conditions import Conditions
from models.generator import Generator
from pipeline.generation.config import GenerationConfig, GeneratorOptions
from pipeline.generation.linear.refined import AnyGenerator
from rendering.texture import render_textured
from utils import cli, seeding

GRID_COLUMNS = 8


class Items(Protocol):
    """Part maps and meshes by row of the views: the pseudo-ground-truth, or a sample of it."""

    def __getitem__(self, row: int, /) -> Any: ...


class Generated(NamedTuple):
    """Generated textured meshes and the views they are shown from.

    Attributes:
        texture: (B, 3, R, R) in [-1, 1].
        displacement: (B, 3, S, S).
        pose: B poses of training photographs.
    """

    texture: Tensor
    displacement: Tensor
    pose: Pose


def select(sample: Generated, rows: Sequence[int]) -> Generated:
    """Returns some rows of a batch."""
    index = torch.tensor(rows, dtype=torch.int64, device=sample.texture.device)
    return Generated(
        sample.texture[index], sample.displacement[index], camera.select(sample.pose, index)
    )


def joined(parts: Sequence[Generated]) -> Generated:
    """Returns several batches as one."""
    poses = zip(*(part.pose for part in parts), strict=True)
    return Generated(
        torch.cat([part.texture for part in parts]),
        torch.cat([part.displacement for part in parts]),
        Pose(*(torch.cat(members) for members in poses)),
    )


def latent_codes(samples: Sequence[int], size: int, sigma: float, seed: int) -> Tensor:
    """Returns (B, size) codes from a normal distribution truncated to [-sigma, sigma].

    Drawn by inversion, one generator per sample number, so that a number always means the same mesh.
    """
    # Uniform numbers through the inverse of the truncated distribution
    rows = [torch.rand(size, generator=seeding.torch_generator(seed, "code", i)) for i in samples]
    uniform = torch.stack(rows).double() if rows else torch.zeros(0, size, dtype=torch.double)
    bound = math.erf(sigma / math.sqrt(2))
    return (math.sqrt(2) * torch.erfinv((2 * uniform - 1) * bound)).float().clamp(-sigma, sigma)


def make_sphere(options: GeneratorOptions) -> SphereMesh:
    """Returns the sphere that --mesh_path names, else the one with a row of vertices for each of the maps."""
    for rings in (16, 31, 63):
        if f"{rings}rings" in options.mesh_path:
            return SphereMesh(rings)
    if options.mesh_path == "autodetect":
        return SphereMesh(options.mesh_resolution - 1)
    raise cli.UserError(
        f"--mesh_path {options.mesh_path}: expected autodetect or uvsphere_{{16,31,63}}rings.obj."
    )


def make_generator(
    options: GeneratorOptions, num_classes: int | Sequence[int], num_parts: int
) -> Generator:
    """Returns the untrained generator of a run."""
    return Generator(
        texture_resolution=options.texture_resolution,
        latent_dim=options.latent_dim,
        num_classes=num_classes,
        num_parts=num_parts,
        norm=options.norm_g,
        width=options.width,
        mesh_resolution=options.mesh_resolution,
    )


def conditions_of(generator: AnyGenerator, batch: UVSample) -> Conditions:
    """Returns what a batch says of the conditions that the generator has."""
    return Conditions(
        category=batch.category if generator.num_classes else None,
        seg=batch.seg if generator.num_parts else None,
    )


def generate(
    generator: AnyGenerator,
    config: GenerationConfig,
    metadata: pseudo_files.PoseMetadata,
    dataset: Items | None,
    rows: Sequence[int],
    samples: Sequence[int],
) -> Generated:
    """Generates one mesh for each sample number, seen and conditioned as the photograph of its row.

    Args:
        generator: in evaluation mode.
        config: of the run.
        metadata: poses and categories of all photographs.
        dataset: part maps and meshes; needed with --conditional_semantics and --texture_only.
        rows: B rows of the metadata.
        samples: B numbers of samples.
    """
    noise = latent_codes(samples, generator.latent_dim, config.truncation_sigma, config.seed)
    return generate_from(noise, generator, config, metadata, dataset, rows)


def generate_from(
    noise: Tensor,
    generator: AnyGenerator,
    config: GenerationConfig,
    metadata: pseudo_files.PoseMetadata,
    dataset: Items | None,
    rows: Sequence[int],
) -> Generated:
    """Generates the meshes of latent codes (B, size); the others are as in `generate`."""
    device = next(generator.parameters()).device
    # What the rows stand for
    class_id = metadata.category[list(rows)].to(device) if generator.num_classes else None
    needs_items = bool(generator.num_parts) or config.model.texture_only
    if needs_items and dataset is None:
        raise cli.UserError(
            "--conditional_semantics and --texture_only need the pseudo-ground-truth of the dataset."
        )
    items = [dataset[row] for row in rows] if dataset is not None and needs_items else []
    seg = torch.stack([item.seg for item in items]).to(device) if generator.num_parts else None
    # Generate, and place under the poses of the photographs
    with torch.no_grad():
        texture, displacement = generator(noise.to(device), Conditions(class_id, seg))
    if config.model.texture_only:
        displacement = torch.stack([item.mesh for item in items]).to(device)
    pose = camera.to_device(camera.select(metadata.pose, torch.tensor(list(rows))), device)
    return Generated(texture, displacement, pose)


def render(template: SphereMesh, sample: Generated, size: int) -> tuple[Tensor, Tensor]:
    """Renders without perspective: colors (B, 3, size, size), 0 outside, and coverage (B, 1, ...)."""
    vertices = camera.project(template.deform(sample.displacement), sample.pose, orthographic=True)
    colors, coverage, _ = render_textured(template, vertices, sample.texture, size, soft=False)
    return colors, coverage


def framed(template: SphereMesh, sample: Generated) -> Generated:
    """Returns meshes that are turned as before and fill their pictures, whatever their size was."""
    vertices = template.deform(sample.displacement)
    return sample._replace(pose=camera.framed(vertices, sample.pose, orthographic=True))


def eligible_rows(
    config: GenerationConfig,
    metadata: pseudo_files.PoseMetadata,
    categories: Sequence[str] | None = None,
    label_names: Mapping[str, list[str]] | None = None,
) -> list[int]:
    """Returns the rows of the metadata, those of --filter_class only if it is given.

    Args:
        config: of the run.
        metadata: views of the photographs.
        categories: names of their classes; by default what cache/ says.
        label_names: labels of each set that takes the place of the classes.
    """
    if config.sampling.filter_class is None:
        return list(range(len(metadata.category)))
    if label_names:
        labels = Labels(dict(label_names), metadata.category)
        return rows_with(labels, config.sampling.filter_class)
    # Rows of one class
    category = class_label(config.data.dataset, config.sampling.filter_class, categories)
    rows = (metadata.category == category).nonzero().flatten().tolist()
    if not rows:
        raise cli.UserError(
            f"--filter_class {config.sampling.filter_class}: {config.data.dataset} has none."
        )
    return rows


def sample_rows(eligible: Sequence[int], how_many: int, seed: int) -> list[int]:
    """Draws rows without replacement, starting over as often as needed."""
    # Whole permutations, so that every row comes equally often
    order: list[int] = []
    for turn in range(-(-how_many // len(eligible))):
        generator = seeding.numpy_generator(seed, "rows", turn)
        order += [eligible[i] for i in generator.permutation(len(eligible))]
    return order[:how_many]


def optional_dataset(config: GenerationConfig) -> PseudoGroundTruth | None:
    """Returns the pseudo-ground-truth where it is there; evaluation can do without."""
    where = (config.model.texture_resolution, config.data.mode)
    found = [pseudo_files.pseudo_item_paths(n, *where) for n in folder_names(config.data.dataset)]
    return open_dataset(config) if all(found) else None


def open_dataset(config: GenerationConfig, *, held_out: bool = False) -> PseudoGroundTruth:
    """Returns the pseudo-ground-truth, with part maps and labels if the model is conditional on them.

    Args:
        config: of the run.
        held_out: whether it is that of the photographs that are kept for evaluation, rather than that of
            those that are trained on; where none are kept, either is that of all.

    Raises:
        UserError: if there is none, or too little is left for training.
    """
    dataset = PseudoGroundTruth(
        config.data.dataset,
        config.model.texture_resolution,
        config.data.mode,
        segmentation=config.model.conditional_semantics,
        mesh_resolution=config.model.mesh_resolution,
    )
    if config.data.held_out:
        kept = set(held_out_rows(dataset.metadata.paths, config.data.held_out))
        rows = [row for row in range(len(dataset)) if (row in kept) == held_out]
        if not rows:
            raise cli.UserError(
                f"--held_out {config.data.held_out}: {config.data.dataset} has {len(dataset)} items of "
                f"{len(set(dataset.metadata.paths))} photographs, and none is left for the training."
            )
        dataset.keep(rows)
    if config.model.label_sets:
        dataset.choose_labels(labels_of(config, dataset.metadata.paths))
    return dataset


def labels_of(
    config: GenerationConfig,
    photographs: Sequence[str],
    known: Mapping[str, list[str]] | None = None,
) -> Labels:
    """Returns the labels that a model is conditional on, of photographs of the dataset.

    Args:
        config: of the run.
        photographs: K paths.
        known: labels of each set that a trained model has.
    """
    name = config.data.dataset
    if len(expand_dataset(name)) > 1:
        raise cli.UserError(
            f"--dataset {name}: labels are of one dataset. Leave the names after --conditional_class "
            "out to make each dataset a class."
        )
    return load_labels(name, config.model.label_sets, photographs, known)


def num_classes(config: GenerationConfig, dataset: PseudoGroundTruth) -> tuple[int, ...]:
    """Returns the number of labels of each set of the model; empty for an unconditional one."""
    if not config.model.conditional_class:
        return ()
    if dataset.label_names:
        return tuple(len(names) for names in dataset.label_names.values())
    categories = dataset.metadata.category
    return (max(len(expand_dataset(config.data.dataset)), int(categories.max()) + 1),)


def num_parts(config: GenerationConfig, dataset: PseudoGroundTruth) -> int:
    """Returns the channels of the part maps that the model is conditional on; 0 for none."""
    if not config.model.conditional_semantics:
        return 0
    return len(dataset[0].seg)
