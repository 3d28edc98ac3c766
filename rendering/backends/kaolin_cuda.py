"""Rasterizer of NVIDIA Kaolin (0.11 or later), which needs CUDA; loaded only where both exist."""

import torch
from kaolin.render import mesh as kaolin_mesh  # pyright: ignore[reportMissingImports]
from torch import Tensor

from rendering.backends import Options, composed
from rendering.backends.composed import sample_texture, texel_weights

__all__ = ["rasterize", "sample_texture", "silhouette_loss", "texel_weights"]

DEVICE = "cuda"


def rasterize(
    vertices: Tensor,
    faces: Tensor,
    values: Tensor | None,
    corners: Tensor | None,
    options: Options,
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """As `rendering.rasterizer.rasterize`; arguments are checked and on one GPU."""
    # Kaolin takes corners of faces, not indices
    triangles = vertices.float()[:, faces]  # (B, F, 3, 3)
    z, xy = triangles[..., 2].contiguous(), triangles[..., :2].contiguous()
    shown = torch.ones_like(triangles[..., :1])
    if values is not None and corners is not None:
        shown = values.float()[:, corners].contiguous()
    # Faces with a negative normal are culled; a constant normal keeps all of them
    sides = triangles[:, :, 1:] - triangles[:, :, :1]
    normal = torch.linalg.cross(sides[:, :, 0], sides[:, :, 1])[..., 2]
    towards = normal if options.cull else torch.ones_like(normal)
    alpha = None
    if options.soft:
        image, alpha, face_index = kaolin_mesh.dibr_rasterization(
            options.size,
            options.size,
            z,
            xy,
            shown,
            towards,
            sigmainv=options.sharpness,
            boxlen=options.box_length,
            knum=options.max_faces,
        )
        alpha = alpha.unsqueeze(1)
    else:
        image, face_index = kaolin_mesh.rasterize(
            options.size, options.size, z, xy, shown, valid_faces=towards >= 0
        )
    attributes = None if values is None else image.permute(0, 3, 1, 2)
    coverage = (face_index >= 0).unsqueeze(1).float()
    alpha_only = values is None and options.soft
    return attributes, coverage, alpha, None if alpha_only else face_index


def silhouette_loss(
    vertices: Tensor, faces: Tensor, targets: Tensor, target_index: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """As `rendering.rasterizer.silhouette_loss`."""
    return composed.silhouette_loss(rasterize, vertices, faces, targets, target_index, options)
