"""Times the rasterizer, and every other one that is installed, on the same meshes in one run.

Uses, each forward and backward:
  fused    silhouette_loss: what pose estimation does thousands of times
  alpha    the same loss put together from rasterize and PyTorch's operations
  texture  soft silhouette and texture lookup: what training does

Prints the median time of an image in milliseconds, the rows of a table interleaved so that other
work on the machine disturbs all alike. The last line is JSON. Compilation is not counted.

Examples:
  python -m benchmarks.rasterization
  python -m benchmarks.rasterization --sizes 256 --batch_sizes 80 --repeats 50
  python -m benchmarks.rasterization --plot docs/images/rasterizer_cost.png
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import trimesh
from torch import Tensor

from benchmarks import peers
from benchmarks.log_plot import write_log_plots
from geometry.sphere_mesh import SphereMesh
from geometry.uv_sphere import uv_sphere
from rendering.rasterizer import rasterize, silhouette_loss
from rendering.texture import render_textured

TEXTURE_SIZE = 128
LARGEST_CASE = 2**25  # pixels of a batch; larger ones are left out


class Case(NamedTuple):
    """Meshes and masks, and how large they are drawn."""

    vertices: Tensor  # (B, V, 3)
    faces: Tensor  # (F, 3)
    targets: Tensor  # (1, size, size)
    target_index: Tensor  # (B,)
    size: int


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16, 80])
    parser.add_argument(
        "--subdivisions", type=int, nargs="+", default=[1, 2, 3], help="1920 * 4^n faces"
    )
    parser.add_argument("--repeats", type=int, default=9, help="calls to take the median of")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw time over pixels and faces")
    parser.add_argument("--peak_memory_of", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the options ask for."""
    options = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    if options.peak_memory_of:
        print(json.dumps(peak_memory(*options.peak_memory_of)))  # noqa: T201
        return
    # Speed, then memory and start-up, each in a fresh process
    rows = [row for case in cases(options) for row in measure(case, options.repeats)]
    memory = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.rasterization", "--peak_memory_of", "80", "256"]
    )
    first = first_use()
    print(f"fused, 80 meshes at 256 pixels: {json.loads(memory):.0f} MB above the inputs")  # noqa: T201
    print(f"first use from a warm cache: {first:.2f} s")  # noqa: T201
    # A picture on request; the last line is for programs
    if options.plot:
        draw(options.plot, rows)
    machine = {"torch": torch.__version__, "cpu": platform.processor(), "cores": os.cpu_count()}
    summary = {"peak_memory_mb": json.loads(memory), "first_use_s": first, "rows": rows}
    print(json.dumps(machine | summary))  # noqa: T201


def cases(options: argparse.Namespace) -> list[tuple[int, int, int, str]]:
    """Returns (batch size, size, subdivisions, device): all sizes, then all numbers of faces."""
    # The cost over pixels, then over faces at the middle size
    plain = [(b, s, 0) for s in options.sizes for b in options.batch_sizes]
    middle = options.sizes[len(options.sizes) // 2]
    finer = [(options.batch_sizes[0], middle, n) for n in options.subdivisions]
    return [(b, s, n, options.device) for b, s, n in plain + finer if b * s * s <= LARGEST_CASE]


def measure(case: tuple[int, int, int, str], repeats: int) -> list[dict[str, Any]]:
    """Times all uses of a case with one thread and all; prints and returns a row each."""
    batch, size, subdivisions, device = case
    meshes = make_case(batch, size, subdivisions, device)
    # One thread and all of them; GPUs do not use the pool
    threads = sorted({1, os.cpu_count() or 1}) if device == "cpu" else [1]
    work = uses(meshes, textured=subdivisions == 0) | peers.uses(*meshes)
    calls = {
        (use, count): functools.partial(with_threads, count, function)
        for use, function in work.items()
        for count in threads
    }
    rows = []
    for (use, count), (forward, backward) in median_times(calls, repeats).items():
        row = {"use": use, "size": size, "batch": batch, "faces": len(meshes.faces)}
        row |= {"threads": count, "forward": forward / batch, "backward": backward / batch}
        words = (f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print("  ".join(words), flush=True)  # noqa: T201
        rows.append(row)
    return rows


def with_threads(count: int, function: Callable[[], Tensor]) -> Tensor:
    """Calls a function with a number of rendering threads."""
    os.environ["TMG_THREADS"] = str(count)
    return function()


def make_case(batch: int, size: int, subdivisions: int, device: str) -> Case:
    """Returns bumpy ellipsoids, turned at random, that fill about half of the image."""
    # Faces: the sphere, subdivided
    sphere = uv_sphere(31)
    vertices, faces = sphere.vertices, sphere.faces
    for _ in range(subdivisions):
        vertices, faces = trimesh.remesh.subdivide(vertices, faces)[:2]
    points = torch.as_tensor(vertices).float()
    # Shapes: waves on an ellipsoid, in random rotations
    generator = torch.Generator().manual_seed(1)
    turn, _ = torch.linalg.qr(torch.randn((batch, 3, 3), generator=generator))
    turn[:, :, 0] *= torch.linalg.det(turn)[:, None]  # no mirror images
    waves = 1 + 0.1 * torch.sin(5 * points.sum(1, keepdim=True))
    meshes = ((points * waves * torch.tensor([0.6, 0.95, 0.7])) @ turn.mT).to(device)
    triangles = torch.as_tensor(faces).long().to(device)
    # One disc is the target of all of them
    steps = torch.linspace(-1, 1, size, device=device)
    targets = (steps.square()[:, None] + steps.square() < 0.4).float()[None]  # a disc
    index = torch.zeros(batch, dtype=torch.int64, device=device)
    return Case(meshes.requires_grad_(), triangles, targets, index, size)


def uses(case: Case, textured: bool) -> dict[str, Callable[[], Tensor]]:
    """Returns functions from nothing to a scalar with gradient."""
    vertices, faces, targets, index, size = case

    def fused() -> Tensor:
        return silhouette_loss(vertices, faces, targets, index)[0].sum()

    def alpha() -> Tensor:
        image = rasterize(vertices, faces, size).alpha
        assert image is not None
        return (image[:, 0] - targets[index]).square().mean((1, 2)).sum()

    # Textures have the layout of the sphere, which subdivision loses
    if not textured:
        return {"fused": fused, "alpha": alpha}
    template = SphereMesh().to(vertices.device)
    shape = (len(vertices), 3, TEXTURE_SIZE, TEXTURE_SIZE)
    colors = torch.rand(shape, device=vertices.device, requires_grad=True)

    def texture() -> Tensor:
        rendering = render_textured(template, vertices, colors, size)
        assert rendering.alpha is not None
        return rendering.colors.sum() + rendering.alpha.sum()

    return {"fused": fused, "alpha": alpha, "texture": texture}


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draws the time of an image with one thread over the pixels and over the faces."""
    # Curves of the smallest batch, where a call costs most per image
    one = [row for row in rows if row["threads"] == 1]
    batch = min(row["batch"] for row in one)
    fewest, middle = (
        min(row["faces"] for row in one),
        statistics.median_low(sorted({row["size"] for row in one})),
    )

    def curve(use: str, key: str, fixed: str, value: int) -> list[tuple[float, float]]:
        chosen = (r for r in one if (r["use"], r["batch"], r[fixed]) == (use, batch, value))
        points = (
            (r[key] ** (2 if key == "size" else 1), r["forward"] + r["backward"]) for r in chosen
        )
        return sorted(points)

    names = sorted({row["use"] for row in one})
    over_pixels = {use: curve(use, "size", "faces", fewest) for use in names}
    over_faces = {use: curve(use, "faces", "size", middle) for use in names if use != "texture"}
    write_log_plots(
        path,
        {
            f"pixels ({fewest} faces)": over_pixels,
            f"faces ({middle} x {middle} pixels)": over_faces,
        },
        "ms per image",
    )


def median_times(
    calls: dict[Any, Callable[[], Tensor]], repeats: int
) -> dict[Any, tuple[float, float]]:
    """Median milliseconds of each function, forward and backward, measured in turns."""
    durations: dict[Any, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats + 2):  # two to warm up
        # In turns, so that a busy machine slows all of them alike
        for name, function in calls.items():
            times = [now()]
            value = function()
            times.append(now())
            value.backward()
            times.append(now())
            durations[name].append((times[1] - times[0], times[2] - times[1]))
    return {
        name: (
            1e3 * statistics.median(forward for forward, _ in pairs[2:]),
            1e3 * statistics.median(backward for _, backward in pairs[2:]),
        )
        for name, pairs in durations.items()
    }


def now() -> float:
    """Seconds, after a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(batch: int, size: int) -> float:
    """Megabytes that the fused loss and its gradient add to the process, on the CPU."""
    small = make_case(2, 16, 0, "cpu")
    uses(small, False)["fused"]().backward()  # loads compiled code
    case = make_case(batch, size, 0, "cpu")
    call = uses(case, False)["fused"]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is in use now
    before = status("VmRSS")
    call().backward()
    return status("VmHWM") - before


def status(key: str) -> float:
    """A figure of this process in megabytes, from /proc (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def first_use() -> float:
    """Seconds of the first fused call of a new process, whose machine code is cached."""
    # Imports are not counted, loading the machine code is
    program = (
        "from benchmarks.rasterization import make_case, now, uses;"
        "call = uses(make_case(1, 64, 0, 'cpu'), textured=False)['fused'];"
        "start = now(); call().backward(); print(now() - start)"
    )
    return float(subprocess.check_output([sys.executable, "-c", program]))


if __name__ == "__main__":
    main()
