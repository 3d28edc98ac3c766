"""A tiny dataset with known poses and parts: a lopsided sphere with a head and a tail."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data import prepare
from data.cache import pose_files, template_files
from data.cache.storage import Origin
from data.detections import load_detections
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from models.features import FeatureNetwork
from rendering.rasterizer import rasterize

SIZE = 64  # pixels of the photographs


class Network(FeatureNetwork):
    """Stands for a pretrained network: local means of powers and products of the colors."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.name, self.digest, self.resolution = "colors", "0", SIZE
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        color = images[:, :3]
        products = [color, color.square(), color**3, color.abs(), color.sin()]
        maps = torch.cat([*products, color * color.roll(1, dims=1)], dim=1)
        return nn.functional.adaptive_avg_pool2d(maps, 7)


def body() -> Tensor:
    """Returns vertices (962, 3): long, with a high narrow head and a thick low tail."""
    x, y, z = SphereMesh().vertices.unbind(-1)
    taper = 0.35 + 0.2 * y
    return torch.stack([0.8 * taper * x, y, taper * z + 0.25 * y**2 - 0.15 * y - 0.1], dim=-1)


def part_labels() -> Tensor:
    """Returns the label of each vertex (962,): 1 head, 2 tail, 0 none."""
    y = SphereMesh().vertices[:, 1]
    return (y < -0.4).long() + 2 * (y > 0.4).long()


def poses(azimuth: list[float], elevation: list[float]) -> Pose:
    """Returns poses that show the body within the crop, at a distance that hides perspective."""
    count = len(azimuth)
    rotation = quaternion.from_view(
        torch.tensor(azimuth), torch.tensor(elevation), torch.zeros(count)
    )
    pose = Pose(torch.ones(count, 1), torch.zeros(count, 2), rotation, torch.full((count, 1), 4.0))
    planar = project(body().expand(count, -1, -1), pose)[..., :2]
    low, high = planar.amin(dim=1), planar.amax(dim=1)
    scale = 1.8 / (high - low).amax(dim=1, keepdim=True)
    center = scale * (low + high) / 2
    return pose._replace(scale=scale, translation=center * torch.tensor([-1.0, 1.0]))


def draw(pose: Pose, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Returns masks (N, size, size) and part maps (N, 3, size, size): body, head, tail."""
    mesh = SphereMesh()
    count = len(pose.scale)
    labels = torch.nn.functional.one_hot(part_labels(), 3).float()
    screen = project(body().expand(count, -1, -1), pose)
    raster = rasterize(
        screen, mesh.faces, size, attributes=labels.expand(count, -1, -1), soft=False
    )
    assert raster.attributes is not None
    return raster.coverage[:, 0], raster.attributes


def origin(name: str = "toy") -> Origin:
    """Returns the fingerprints of a prepared dataset and its template."""
    templates = template_files.load_templates("bird", "singletpl")
    return pose_files.origin_of(load_detections(name), templates)


def write_dataset(pose: Pose, name: str = "toy") -> None:
    """Writes datasets/toy/ of bodies with ground truth, prepares it and makes its template.

    Red grows from head to tail, green from left and right to the middle, blue from belly to back.
    """
    masks, parts = draw(pose)
    mesh, count = SphereMesh(), len(masks)
    x, y, z = mesh.vertices.unbind(-1)
    paint = 0.5 + 0.4 * torch.stack([y, 1 - 2 * x.abs(), z], dim=1)
    screen = project(body().expand(count, -1, -1), pose)
    raster = rasterize(screen, mesh.faces, SIZE, attributes=paint.expand(count, -1, -1), soft=False)
    assert raster.attributes is not None
    write_photographs(pose, raster.attributes, masks, parts, name)


def write_photographs(pose: Pose, colors: Tensor, masks: Tensor, parts: Tensor, name: str) -> None:
    """Writes, prepares and makes the template of a dataset with colors (N, 3, h, w) in [0, 1]."""
    root = Path("datasets") / name
    for folder in ("images", "masks", "parts"):
        (root / folder).mkdir(parents=True)
    for i, (color, mask, part) in enumerate(zip(colors, masks, parts, strict=True)):
        file = f"toy_{i:02d}.png"
        pixels = (mask * 255).byte().numpy()
        shown = (color * 255).byte().permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(shown).save(root / "images" / file)
        Image.fromarray(pixels).save(root / "masks" / file)
        labels = part.argmax(dim=0) * (mask > 0)
        Image.fromarray(labels.byte().numpy()).save(root / "parts" / file)
    (root / "parts.json").write_text(json.dumps({"parts": {"1": "head", "2": "tail"}}))
    count = len(masks)
    np.savez(
        root / "ground_truth.npz",
        name=np.array([f"toy_{i:02d}" for i in range(count)]),
        rotation=pose.rotation.numpy(),
        scale_px=np.full(count, SIZE / 2, np.float32),
        translation_px=np.full((count, 2), SIZE / 2, np.float32),
        camera_distance=np.full(count, np.inf, np.float32),
        shape_id=np.zeros(count, np.int64),
    )
    prepare.main(["--dataset", name, "--category", "bird"])
    template_files.save_templates("bird", "singletpl", body()[None])
