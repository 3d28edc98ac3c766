"""A mesh estimator on photographs of five disks, four of them with a pose."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import run_reconstruction
from data.cache import pose_files, template_files
from data.detections import Detection, Detections, Part, save_detections
from data.run_lengths import encode_mask, mask_box
from geometry.camera import Pose
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.config import make_config
from utils import checkpoint

COUNT = 5
SIZE = 48
RUN = Path("checkpoints_recon/toy_singletpl")
OPTIONS = ["--name", "toy_singletpl", "--dataset", "toy", "--image_resolution", "64"]
OPTIONS += ["--texture_resolution", "64", "--width", "0.05", "--batch_size", "3"]
OPTIONS += ["--gpu_ids", "cpu"]
FLOW = ["--texture_model", "flow", "--perceptual_weight", "1", "--perceptual_features", "gradients"]
CAMERAS = ["--camera_source", "predicted", "--num_hypotheses", "4"]


def make_dataset(name: str, category: str, parts: tuple[str, ...]) -> None:
    """Prepares photographs of disks with known poses and a sphere as template."""
    rng = np.random.default_rng(len(name))
    items = []
    for i in range(COUNT):
        y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
        mask = np.hypot(x, y) < 14 + i
        path = Path("datasets") / name / "images" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, 3) * np.ones((SIZE, SIZE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        found = []
        for k, part in enumerate(parts):
            region = mask & (x < 0 if k % 2 else x > 4)
            found.append(Part(part, 0.9, mask_box(region), encode_mask(region), 1.0))
        box = mask_box(mask)
        items.append(Detection(i, str(path), SIZE, SIZE, box, 1.0, encode_mask(mask), tuple(found)))
    detections = Detections(name, category, tuple(items))
    save_detections(detections)
    save_template(category, 0.9)
    save_poses(detections, range(1, COUNT))


def save_template(category: str, radius: float) -> None:
    template_files.save_templates(category, "singletpl", radius * SphereMesh().vertices[None])


def save_poses(detections: Detections, rows: range) -> None:
    count = len(rows)
    rotation = torch.nn.functional.normalize(torch.randn(count, 4, generator=torch.manual_seed(0)))
    pose = Pose(
        torch.full((count, 1), 0.8),
        torch.zeros(count, 2),
        rotation,
        torch.full((count, 1), 2.0),
    )
    poses = pose_files.EstimatedPoses(
        indices=torch.tensor(list(rows)),
        pose=pose,
        template_weights=torch.ones(count, 1),
        iou=torch.linspace(0.5, 0.9, count)[:, None],
        miou=torch.full((count, 1), 0.5),
        confidence=torch.ones(count, 1),
    )
    templates = template_files.load_templates(detections.category, "singletpl")
    origin = pose_files.origin_of(detections, templates)
    pose_files.save_estimated_poses(detections.dataset, "singletpl", poses, origin)


def run(*options: str) -> None:
    run_reconstruction.main([*OPTIONS, *options])


def state(run_name: str = "toy_singletpl") -> dict:
    folder = Path("checkpoints_recon") / run_name
    return checkpoint.load(checkpoint.resolve(folder, "latest"))


def config(*options: str):
    return make_config(vars(run_reconstruction.build_parser().parse_args([*OPTIONS, *options])))
