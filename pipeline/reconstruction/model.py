"""The mesh estimator in use: network, prediction and rendering."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.camera import project
from geometry.shape_modes import deform
from geometry.sphere_mesh import SphereMesh
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.config import ModelOptions, ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData, Vocabulary
from pipeline.reconstruction.texture_flow import flow_start, flow_texture
from rendering.rasterizer import SHARPNESS, rasterize
from rendering.texture import render_textured
from utils import seeding


class Scene(NamedTuple):
    """What all images share, on one device.

    Attributes:
        sphere: topology of the meshes.
        templates: (T, V, 3) meshes of the categories.
        selection: (C, P, Cg) which part channels a category has.
        modes: (T, M, V, 3) by which objects deviate from the templates.
    """

    sphere: SphereMesh
    templates: Tensor
    selection: Tensor
    modes: Tensor

    @property
    def has_parts(self) -> bool:
        """Whether a category has parts; otherwise maps of parts are 1 everywhere and say nothing."""
        return self.selection.shape[2] > 1

    def shapes(self, labels: Labels) -> Tensor:
        """Returns the shapes (B, V, 3) that were fitted to B images, templates where none were."""
        modes = self.modes[labels.template]
        return deform(self.templates[labels.template], labels.shape, modes)


class Prediction(NamedTuple):
    """What the network says about a batch of images.

    Attributes:
        displacement_map: (B, 3, S, S).
        texture: (B, 3, R, R) in [-1, 1], or None.
        parts: (B, Cg, R, R) probabilities over the common part list, or None.
        vertices: (B, V, 3) object space.
        screen: (B, V, 3) screen space, under the given poses.
        flow: (B, 2, R, R) positions in the image, x right and y up in [-1, 1], at which it shows the
            texels; None if textures are predicted as colors.
    """

    displacement_map: Tensor
    texture: Tensor | None
    parts: Tensor | None
    vertices: Tensor
    screen: Tensor
    flow: Tensor | None = None


def make_data(config: ReconstructionConfig, cache_bytes: int = 0) -> ReconstructionData:
    """Reads the artifacts that a run needs.

    Args:
        config: options of the run.
        cache_bytes: memory for crops that are read more than once, as in training.
    """
    return ReconstructionData(
        config.data.dataset,
        config.data.mode,
        config.model.image_resolution,
        semi_fraction=config.data.semi_fraction,
        parts=config.model.predicts_parts,
        part=config.data.part,
        cache_bytes=cache_bytes,
        poses_from=config.model.poses_from,
    )


def make_scene(
    vocabulary: Vocabulary,
    options: ModelOptions,
    device: torch.device,
    modes: Tensor | None = None,
) -> Scene:
    """Moves what all images share to a device; training needs the modes (T, M, 962, 3) as well.

    Templates and modes have the vertices of the sphere of 31 rings, and are carried to that of the model.
    """
    sphere, templates = SphereMesh(options.rings), vocabulary.templates
    if modes is None:
        modes = templates.new_zeros(len(templates), 0, templates.shape[1], 3)
    # Each mode is carried like a mesh
    coarse, shape = SphereMesh(), modes.shape[:2]
    templates = coarse.resample(templates, sphere)
    modes = coarse.resample(modes.flatten(0, 1), sphere).unflatten(0, shape)
    tensors = (templates.to(device), vocabulary.selection.to(device), modes.to(device))
    return Scene(sphere.to(device), *tensors)


def make_network(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device
) -> ReconstructionNetwork:
    """Returns the untrained network of a run; its weights are a function of the seed."""
    seeding.seed_everything(config.seed, "network")
    network = untrained(config.model, data.vocabulary)
    if config.model.shape_head != "convolution":
        sphere = SphereMesh(config.model.rings)
        shapes = SphereMesh().resample(mean_shapes(data), sphere)
        network.mean_mesh.data.copy_(sphere.half_displacement_map(shapes))
    if config.model.predicts_flow:
        sphere, resolution = SphereMesh(), config.model.texture_resolution
        count = len(data.vocabulary.categories)
        start = flow_start(sphere, data.templates, data.labels, count, resolution)
        network.flow_start.copy_(start)
    return place(network, device)


def mean_shapes(data: ReconstructionData) -> Tensor:
    """Returns the mean over the images of each category of the shapes fitted to them, (C, V, 3)."""
    labels, shapes = data.labels, []
    for category in range(len(data.vocabulary.categories)):
        own = labels.category == category
        # Shapes are linear in their coefficients, so that sums over the images of a template do
        counts = labels.template[own].bincount(minlength=len(data.templates)).float()
        sums = labels.shape.new_zeros(len(data.templates), labels.shape.shape[1])
        sums.index_add_(0, labels.template[own], labels.shape[own])
        templates = torch.einsum("t,tvj->vj", counts, data.templates)
        shapes.append((templates + torch.einsum("tm,tmvj->vj", sums, data.modes)) / counts.sum())
    return torch.stack(shapes)


def untrained(options: ModelOptions, vocabulary: Vocabulary) -> ReconstructionNetwork:
    """Returns a network for some categories and parts, with the weights that PyTorch draws."""
    return ReconstructionNetwork(
        num_categories=len(vocabulary.categories),
        num_parts=1 + len(vocabulary.part_names),
        texture_resolution=options.texture_resolution,
        prediction_type=options.prediction_type,
        norm=options.norm_g,
        image_resolution=options.image_resolution,
        width=options.width,
        texture_model=options.texture_model,
        shape_head=options.shape_head,
        mesh_resolution=options.mesh_resolution,
    )


def place(network: ReconstructionNetwork, device: torch.device) -> ReconstructionNetwork:
    """Moves a network to a device, in the layout in which it is a tenth faster on the CPU."""
    return network.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]


def predict(
    network: ReconstructionNetwork,
    scene: Scene,
    image: Tensor,
    labels: Labels,
    *,
    bfloat16: bool = False,
) -> Prediction:
    """Estimates meshes and places them under the poses of the labels.

    Args:
        network: the estimator.
        scene: what the images share.
        image: (B, 4, h, h) crops.
        labels: of the B images.
        bfloat16: runs the network, and nothing else, in mixed precision.
    """
    # Convolutions are a tenth faster in this layout
    image = image.contiguous(memory_format=torch.channels_last)
    # Only the network may run in mixed precision: geometry needs all digits
    selection = scene.selection[labels.category]
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
        maps = network(image, labels.category, selection)
    texture, displacement_map, parts = (None if x is None else x.to(image.dtype) for x in maps)
    assert displacement_map is not None
    # Flow fetches its colors from the image
    flow = None
    if texture is not None and network.texture_model == "flow":
        flow, texture = texture, flow_texture(image, texture)
    # From the sphere to object space, then to the screen
    vertices = scene.sphere.deform(displacement_map)
    screen = project(vertices, labels.pose)
    return Prediction(displacement_map, texture, parts, vertices, screen, flow)


def render(
    scene: Scene,
    prediction: Prediction,
    labels: Labels,
    size: int,
    *,
    sharpness: float = SHARPNESS,
) -> tuple[Tensor | None, Tensor]:
    """Renders what was predicted, with silhouettes of a sharpness per squared screen unit.

    Returns:
        The maps (B, C, size, size), zero outside the mesh: part probabilities over the channels of
        the image's category if any category has parts, then colors, as far as they are predicted
        (None if neither is); and the soft silhouette (B, 1, size, size).
    """
    # All maps are rendered at once, in one order of channels
    maps = []
    if prediction.parts is not None and scene.has_parts:
        selection = scene.selection[labels.category]
        maps.append(torch.einsum("bpc,bchw->bphw", selection, prediction.parts))
    if prediction.texture is not None:
        maps.append(prediction.texture)
    if not maps:
        faces = scene.sphere.faces
        alpha = rasterize(prediction.screen, faces, size, sharpness=sharpness).alpha
        assert alpha is not None
        return None, alpha
    # Colors and soft silhouette come from the same fragments
    rendering = render_textured(
        scene.sphere, prediction.screen, torch.cat(maps, 1), size, sharpness=sharpness
    )
    assert rendering.alpha is not None
    return rendering.colors, rendering.alpha
