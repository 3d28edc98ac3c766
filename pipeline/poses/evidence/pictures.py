"""Pictures that are painted onto the templates: the colors of photographs, or semantic features of them."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data.cache.feature_maps import feature_maps
from data.detections import Detections
from models.features import FeatureNetwork, pooled_mask, principal_components
from pipeline.poses.photographs import Photographs

COMPONENTS = 16  # of the features
REACH = 4.0  # values of features, in units of their root mean square, that textures can hold
COLOR_BANDWIDTH = 0.1  # root mean square difference of like colors in [-1, 1]
COLOR_DISTANCE = 0.35  # expected squared difference of the colors of two cells
# In units of the root mean square of the features. At this width they agree best with the outlines of
# cars and horses; half of it leaves half of the horses without a neighbor
FEATURE_BANDWIDTH = 0.2
FEATURE_DISTANCE = 0.9


class Likeness(NamedTuple):
    """How textures are compared.

    Attributes:
        bandwidth: root mean square difference of like textures.
        expected: squared difference where nothing is seen by both.
    """

    bandwidth: float
    expected: float


class Picture(Protocol):
    """What is painted of a photograph.

    Attributes:
        name: of the kind of evidence.
        depth: number of channels D.
        likeness: how it is compared.
    """

    name: str
    depth: int

    @property
    def likeness(self) -> Likeness: ...

    def draw(self, photographs: Photographs) -> Tensor:
        """Returns the values (n, D, h, w) in [-1, 1] of n photographs, 0 outside the mask."""
        ...


class ColorPicture:
    """Red, green and blue."""

    name, depth = "colors", 3

    @property
    def likeness(self) -> Likeness:
        """How colors are compared."""
        return Likeness(COLOR_BANDWIDTH, COLOR_DISTANCE)

    def draw(self, photographs: Photographs) -> Tensor:
        """Returns the colors (n, 3, h, w)."""
        return photographs.images[:, :3]


class FeaturePicture:
    """Principal components of the features of a pretrained network."""

    name = "features"

    def __init__(self, maps: Tensor) -> None:
        """Takes the components (N, D, s, s) of all images, their mean square being 1."""
        self._maps, self.depth = maps / REACH, maps.shape[1]

    @property
    def likeness(self) -> Likeness:
        """How such components are compared, in the units of textures."""
        return Likeness(FEATURE_BANDWIDTH / REACH, FEATURE_DISTANCE / REACH**2)

    def draw(self, photographs: Photographs) -> Tensor:
        """Returns the components (n, D, h, w), interpolated between the cells of the network."""
        masks = photographs.masks[:, None]
        maps = self._maps[photographs.rows].to(masks.device)
        return functional.interpolate(maps, masks.shape[-2:], mode="bilinear") * masks


def feature_picture(
    network: FeatureNetwork, detections: Detections, device: torch.device
) -> FeaturePicture:
    """Computes the features of all photographs, or reads those of an earlier run.

    Args:
        network: what computes them.
        detections: all N objects.
        device: where to compute.
    """
    network = network.to(device)

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        # One by one: the rounding of convolutions depends on what else is in the batch
        maps = torch.cat([network(image[None].to(device)) for image in images]).cpu()
        return torch.cat([maps, pooled_mask(images, maps.shape[-1])[:, None]], dim=1)

    found = feature_maps(detections, compute, network.digest, network.resolution)
    return FeaturePicture(strongest_components(torch.from_numpy(np.array(found, np.float32))))


def strongest_components(maps: Tensor) -> Tensor:
    """Returns the components (N, COMPONENTS, s, s) that vary most where the maps show objects.

    Their mean there is 0, and the mean of their squared length is 1.

    Args:
        maps: (N, D + 1, s, s) features, and the share of each cell that the object covers.
    """
    features, weight = maps[:, :-1], maps[:, -1]
    mean, basis = principal_components(features, weight, COMPONENTS)
    centered = features - mean.float()[:, None, None]
    components = torch.einsum("ndhw,dc->nchw", centered, basis.float())
    square = (components.square().sum(dim=1) * weight).sum() / weight.sum()
    return components / square.sqrt().clamp(min=1e-6)
