"""Keypoint transfer: how well meshes carry keypoints from one image to another.

A visible keypoint of the source is a point of its mesh; the mesh of the target says where that point is
seen. Protocol of UMR (https://arxiv.org/abs/2003.06473): random pairs, both directions, keypoints that are visible
in both; PCK@a is the share of them that end up closer to the annotation than a times the larger side of
the object's bounding box, by keypoint, then averaged over the keypoints. Unlike there, images are not mirrored, no
image is its own partner, and occlusion counts in the source. Annotations serve evaluation only.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from geometry.correspondence import SurfacePoints, locate, place
from geometry.sphere_mesh import SphereMesh
from rendering.rasterizer import rasterize
from utils.seeding import numpy_generator

KeypointMode = Literal["cam", "uv", "flow"]
RENDER_SIZE = 256  # pixels of the target among which texels are looked up


@dataclass(frozen=True)
class TransferOptions:
    """How keypoint transfer is measured.

    Attributes:
        kp_mode: cam: the point of the target's mesh, wherever its camera puts it; uv: the visible pixel
            of the target whose texel is nearest; flow: where the texture flow of the target finds the
            texel that the flow of the source finds nearest to the keypoint.
        number_pairs: number of pairs.
        pck_alpha: tolerances, relative to the larger side of the object's bounding box.
        seed: of the pairs.
    """

    kp_mode: str
    number_pairs: int
    pck_alpha: tuple[float, ...]
    seed: int


class AnnotatedMeshes(NamedTuple):
    """N images with K keypoints and the meshes that explain them.

    Attributes:
        screen: (N, V, 3) vertices of the sphere's topology in screen space.
        position: (N, K, 2) keypoints, screen space.
        visible: (N, K) bool.
        extent: (N,) larger side of the object's bounding box in screen units.
        group: (N,) int64; keypoints of different groups have nothing to do with each other.
        flow: (N, 2, h, w) maps of the positions on the screen where images show texels; texels of
            the same row and column correspond. Only the mode flow reads them, and nothing else.
    """

    screen: Tensor
    position: Tensor
    visible: Tensor
    extent: Tensor
    group: Tensor
    flow: Tensor | None = None


def measure_transfer(
    images: AnnotatedMeshes, mesh: SphereMesh, options: TransferOptions
) -> dict[str, float]:
    """Returns `pck_<alpha>` of the transfer, and `pck_position_<alpha>` if keypoints stay where they are.

    Figures are NaN unless `shows_pairs`.

    Args:
        images: on the CPU.
        mesh: topology, on the CPU.
        options: of the measurement.
    """
    pairs = draw_pairs(images.group, options.number_pairs, options.seed)
    # Both directions of every pair: rows of source and target
    source, target = torch.cat([pairs, pairs.flip(1)]).unbind(1)
    visible = images.visible[source] & images.visible[target]
    guesses = {
        "pck": transfer(images, source, target, mesh, options.kp_mode),
        "pck_position": images.position[source],
    }
    figures = {}
    for name, guess in guesses.items():
        error = (guess - images.position[target]).norm(dim=-1) / images.extent[target, None]
        figures |= {f"{name}_{alpha:g}": pck(error, visible, alpha) for alpha in options.pck_alpha}
    return figures


def shows_pairs(visible: Tensor, group: Tensor, options: TransferOptions) -> bool:
    """Returns whether any of the pairs shows a keypoint twice: without, there is nothing to measure.

    Args:
        visible: (N, K) bool, as in `AnnotatedMeshes`.
        group: (N,) likewise.
        options: of the measurement.
    """
    pairs = draw_pairs(group, options.number_pairs, options.seed)
    return bool(visible[pairs].all(dim=1).any())


def describe(figures: dict[str, float], options: TransferOptions) -> list[str]:
    """Returns lines with the figures of `measure_transfer` as UMR prints them, PCK.1 0.5121, PCK.15 0.6411."""
    endings = {
        "pck": f"of keypoints transferred by {options.kp_mode}",
        "pck_position": "of keypoints that stay where they are in the crop",
    }
    lines = []
    for name, ending in endings.items():
        words = [
            f"PCK{f'{alpha:g}'.removeprefix('0')} {figures[f'{name}_{alpha:g}']:.4f}"
            for alpha in options.pck_alpha
        ]
        lines.append(f"{', '.join(words)} {ending}")
    return lines


def draw_pairs(group: Tensor, count: int, seed: int) -> Tensor:
    """Draws pairs of different images of the same group, with replacement.

    Args:
        group: (N,) int64; images that are alone in their group are in no pair.
        count: number of pairs.
        seed: the pairs are a function of it and of the groups.

    Returns:
        (count, 2) int64 rows; (0, 2) if no group has two images.
    """
    # Images in the order of their groups: where each group begins, and how large it is
    order = np.argsort(group.numpy(), kind="stable")
    _, begin, number, size = np.unique(
        group.numpy()[order], return_index=True, return_inverse=True, return_counts=True
    )
    usable = np.flatnonzero(size[number] > 1)
    if not len(usable):
        return torch.zeros(0, 2, dtype=torch.int64)
    # The second image follows the first, around the group, by 1 to its size - 1 places
    random = numpy_generator(seed, "keypoint pairs")
    first = usable[random.integers(len(usable), size=count)]
    start, length = begin[number[first]], size[number[first]]
    second = start + (first - start + random.integers(1, length)) % length
    return torch.from_numpy(np.stack([order[first], order[second]], axis=1))


def transfer(
    images: AnnotatedMeshes, source: Tensor, target: Tensor, mesh: SphereMesh, mode: str
) -> Tensor:
    """Returns where the keypoints of sources are seen in targets.

    Args:
        images: N images.
        source: (P,) rows.
        target: (P,) rows.
        mesh: topology.
        mode: one of `KeypointMode`.

    Returns:
        (P, K, 2) screen space; infinite where a target shows no mesh.
    """
    if mode == "flow":
        return _transfer_by_flow(images, source, target)
    # Once per image, whatever the number of pairs
    found = [
        locate(p, screen, mesh.faces)
        for p, screen in zip(images.position, images.screen, strict=True)
    ]
    points = SurfacePoints(*(torch.stack(members) for members in zip(*found, strict=True)))
    # Points of the texture as points of the sphere, where neither poles nor seam are exceptions
    texels = place(points, mesh.vertices.expand(len(images.screen), -1, -1), mesh.faces)
    result = torch.full((*source.shape, texels.shape[1], 2), torch.inf)
    for row in target.unique():
        wanted = torch.nonzero(target == row)[:, 0]
        sources, screen = source[wanted], images.screen[row]
        if mode == "cam":
            chosen = SurfacePoints(points.face[sources], points.weights[sources])
            seen = screen[:, :2].expand(len(wanted), -1, -1)
            result[wanted] = place(chosen, seen, mesh.faces)
            continue
        texel, pixel = _visible_texels(screen, mesh)
        if len(texel):
            nearest = KDTree(texel.numpy()).query(texels[sources].numpy())[1]
            result[wanted] = pixel[torch.from_numpy(nearest)]
    return result


def _transfer_by_flow(images: AnnotatedMeshes, source: Tensor, target: Tensor) -> Tensor:
    """Returns where the texels of the keypoints of sources (P,) are in targets (P,): (P, K, 2)."""
    assert images.flow is not None, "the mode flow needs maps of it"
    flow = images.flow.flatten(2).transpose(1, 2)  # (N, h w, 2)
    # Once per image, whatever the number of pairs
    nearest = [
        KDTree(own.numpy()).query(points.numpy())[1]
        for own, points in zip(flow, images.position, strict=True)
    ]
    texel = torch.from_numpy(np.stack(nearest))
    return flow[target[:, None], texel[source]]


def pck(error: Tensor, visible: Tensor, alpha: float) -> float:
    """Returns the percentage of correct keypoints as a share, averaged over the keypoints.

    Args:
        error: (P, K) distances relative to the size of the object.
        visible: (P, K) bool, the ones that count; keypoints without any are left out of the mean.
        alpha: tolerance.
    """
    counted = visible.sum(0)
    right = ((error < alpha) & visible).sum(0)
    return float((right / counted)[counted > 0].double().mean())


def _visible_texels(screen: Tensor, mesh: SphereMesh) -> tuple[Tensor, Tensor]:
    """Returns the points of the sphere (M, 3) that a mesh shows, and their pixels (M, 2) on the screen."""
    raster = rasterize(
        screen[None], mesh.faces, RENDER_SIZE, attributes=mesh.vertices[None], soft=False
    )
    assert raster.attributes is not None
    rows, columns = torch.nonzero(raster.coverage[0, 0] > 0).unbind(1)
    texel = raster.attributes[0, :, rows, columns].T
    # Centers of the pixels, y up
    x, y = (columns + 0.5) * 2 / RENDER_SIZE - 1, 1 - (rows + 0.5) * 2 / RENDER_SIZE
    return texel, torch.stack([x, y], dim=1)
