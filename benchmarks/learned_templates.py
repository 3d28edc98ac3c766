"""Measures templates that are learned from photographs: `python -m benchmarks.learned_templates`.

Runs the documented commands in a working folder: preparation and `remesh.py --from_photographs`, for
each collection and seed, and with `--poses` steps 1 and 2 as well. Shapes are judged by the Chamfer distance to the mean
of the true shapes, in percent of the diagonal, after the best common turn about the lateral axis and
perhaps a reflection of front and back, beside that of the modeled template; poses after the best common
frame, since the axes of a learned template are arbitrary. The last line is JSON.

Examples:
  python -m benchmarks.learned_templates --seeds 1 2 3
  python -m benchmarks.learned_templates --collections photocars --poses
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.commands import HERE, execute, link_templates
from data.cache import pose_files, template_files
from data.cache.template_files import read_templates, written_path
from data.detections import load_detections
from data.ground_truth import load_ground_truth, load_true_shapes
from geometry import quaternion
from geometry.common_frame import common_frame
from geometry.distances import chamfer_distance
from geometry.sphere_mesh import SphereMesh
from utils import cli
from utils.cli import UserError

COLLECTIONS = {"photocars": "car", "photobirds": "bird"}
MODE = "singletpl"
COARSE, FINE = 30, 3  # degrees between the turns that are tried
Mesh = tuple[np.ndarray, np.ndarray]


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser."""
    parser = cli.Parser(prog="python -m benchmarks.learned_templates", description=__doc__)
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS, default=list(COLLECTIONS), metavar="NAME", help="collections with true shapes (default: all)")
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data", metavar="DIR", help="folder of the collections (default: ../shared/data beside this repository)")
    parser.add_argument("--folder", type=Path, default=Path("output/learned_templates"), metavar="DIR", help="working folder (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", type=cli.non_negative_int, default=[1], metavar="N", help="seeds of learning (default: 1)")
    parser.add_argument("--colors", action=argparse.BooleanOptionalAction, default=True, help="learn from colors too (default: yes)")
    parser.add_argument("--poses", action="store_true", help="estimate the poses of all photographs with each learned template")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Learns, judges, and prints a table and one line of JSON."""
    options = build_parser().parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    # Absolute, since the commands run in the working folder
    data = options.data.resolve()
    os.chdir(options.folder)
    link_templates(HERE, Path())
    if not Path("datasets").exists():
        Path("datasets").symlink_to(data)
    records = [
        {"collection": name, "seed": seed, **measure(options, name, seed)}
        for name in options.collections
        for seed in options.seeds
    ]
    for record in records:
        print("  ".join(f"{key} {_short(value)}" for key, value in record.items()))  # noqa: T201
    print(json.dumps({"colors": options.colors, "records": records}))  # noqa: T201


def measure(options: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    """Learns the template of a collection, and returns how good it is."""
    # Prepare the collection and learn its template with the documented commands
    category = COLLECTIONS[name]
    dataset = ("--dataset", name)
    execute(HERE, Path(), "-m", "data.prepare", *dataset, "--category", category)
    learn = ["remesh.py", "--mode", MODE, "--classes", category, "--from_photographs", name]
    learn += ["--seed", str(seed), "--colors" if options.colors else "--no-colors"]
    found = {"seconds": execute(HERE, Path(), str(HERE / learn[0]), *learn[1:])}
    shapes = load_true_shapes(name)
    if shapes is None:
        raise UserError(f"{name} has no true shapes.")
    # A single template can at best be the mean of the true shapes
    true = shapes.vertices.mean(dim=0).double().numpy(), shapes.faces.numpy()
    for kind, own in (("learned", True), ("modeled", False)):
        path = written_path(category, MODE, own=own)
        found[kind] = best_chamfer(read_templates(path, "Make it.")[0].double().numpy(), true)
    found["ratio"] = found["learned"] / found["modeled"]
    return found | (poses(name) if options.poses else {})


def best_chamfer(vertices: np.ndarray, true: Mesh) -> float:
    """Returns the Chamfer distance of a sphere mesh (962, 3) in the frame that suits it best.

    The frames keep the mirror plane: turns about x, and the same with front and back swapped.
    """
    faces = SphereMesh().faces.numpy()

    def distance(degrees: float, swapped: bool) -> float:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        turned = vertices * (1, -1 if swapped else 1, 1) @ turn.T
        return chamfer_distance((turned, faces), true)

    # A coarse search over all turns, then a fine one about the best
    frames = [(d, swapped) for d in range(0, 360, COARSE) for swapped in (False, True)]
    degrees, swapped = min(frames, key=lambda frame: distance(*frame))
    return min(distance(d, swapped) for d in range(degrees - COARSE, degrees + COARSE, FINE))


def poses(name: str) -> dict[str, float]:
    """Estimates the poses of all photographs of a collection, and returns how good they are."""
    dataset = ("--dataset", name, "--mode", MODE)
    execute(HERE, Path(), str(HERE / "pose_optimization_step1.py"), *dataset)
    # No photograph is dropped, since all are judged
    execute(HERE, Path(), str(HERE / "pose_optimization_step2.py"), *dataset, "--keep_share", "1")
    detections = load_detections(name)
    templates = template_files.templates_of(detections, MODE)
    origin = pose_files.origin_of(detections, templates)
    chosen = pose_files.load_estimated_poses(name, MODE, origin)
    truth = load_ground_truth(detections)
    assert truth is not None
    true = truth.rotation[chosen.indices]
    # The axes of a learned template are arbitrary
    rotation = common_frame(chosen.pose.rotation, true).apply(chosen.pose.rotation)
    degrees = quaternion.angle_between(rotation, true)
    # Front and back confused: right up to a half turn about the upright axis
    half = quaternion.from_axis_angle(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(180.0))
    turned = quaternion.multiply(rotation, half.expand_as(rotation))
    either = torch.minimum(degrees, quaternion.angle_between(turned, true))
    return {
        "under_30": (degrees < 30).float().mean().item(),
        "under_30_or_turned_round": (either < 30).float().mean().item(),
        "median_degrees": degrees.quantile(0.5).item(),
    }


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    cli.run(main)
