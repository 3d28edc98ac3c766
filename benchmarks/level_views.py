"""Says from where a collection is seen after stage 2: `python -m benchmarks.level_views --dataset NAME`.

For collections without true poses of which something is known all the same, such as photographs that
all show the left side. Prints the share of kept images within 30 degrees of each of the four level
views, and the median distance to it; the last line is JSON. To count all images, keep them all:
`pose_optimization_step2.py --keep_share 1`.
"""

import argparse
import json

import torch

from data import artifacts
from data.detections import load_detections
from rendering import quaternion
from utils.cli import MODES, run

VIEWS = {"right": 0.0, "towards": 90.0, "left": 180.0, "away": 270.0}  # where the front points
NEAR = 30.0


def main() -> None:
    """Prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="after stage 2")
    parser.add_argument("--mode", choices=MODES, default="singletpl", help="templates")
    options = parser.parse_args()
    fingerprint = load_detections(options.dataset).fingerprint
    poses = artifacts.load_estimated_poses(options.dataset, options.mode, fingerprint)
    views = {}
    print(f"{'front':10}{'< 30':>8}{'median':>9}")  # noqa: T201
    for name, azimuth in VIEWS.items():
        level = quaternion.from_view(*torch.tensor([azimuth, 0.0, 0.0]))
        degrees = quaternion.angle_between(poses.pose.rotation, level)
        share, median = (degrees < NEAR).float().mean().item(), degrees.quantile(0.5).item()
        views[name] = {"share_under_30": share, "median_degrees": median}
        print(f"{name:10}{share:8.1%}{median:8.1f}°")  # noqa: T201
    print(json.dumps({**vars(options), "images": len(poses.indices), **views}))  # noqa: T201


if __name__ == "__main__":
    run(main)
