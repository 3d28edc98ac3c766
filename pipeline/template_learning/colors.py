"""Colors as evidence for views: what silhouettes leave open, such as which end is the front."""

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh
from pipeline.poses.evidence.appearance import Appearance, Source, densities
from pipeline.poses.evidence.pictures import ColorPicture
from pipeline.poses.evidence.textures import from_bytes
from pipeline.poses.photographs import Photographs
from pipeline.template_learning.views import Views


def with_colors(
    mesh: SphereMesh, templates: Tensor, views: Views, images: Tensor, temperature: float
) -> Views:
    """Weighs the modes by how common the colors are that they paint onto the templates.

    Args:
        mesh: the sphere.
        templates: (T, V, 3).
        views: K modes of each image.
        images: (N, 4, h, w) RGB in [-1, 1], 0 outside the mask, and the mask.
        temperature: of the score.
    """
    # The colors that each mode paints, against those that the other images paint in the same places
    photographs, picture = (
        Photographs(torch.arange(len(images)), images, images[:, :0]),
        ColorPicture(),
    )
    painted = Appearance(picture, templates, mesh).measure(photographs, views.candidates)
    textures = painted[picture.name]
    source = Source(lambda rows: from_bytes(textures[list(rows)]), picture.likeness)
    score = views.score / temperature
    return views._replace(colors=densities([source], score)[:, 0].to(score))
