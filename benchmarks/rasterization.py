"""Times the rasterizer on a UV sphere: `python -m benchmarks.rasterization`.

Three uses, each with its gradient: `fused` (silhouette_loss, what pose estimation does thousands of
times), `alpha` (soft silhouette) and `uv` (soft silhouette and uv image, what training does before
the texture lookup). Prints the median time of an image in milliseconds for one and more threads;
the last line is JSON. Compilation is not counted.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numba
import torch
from torch import Tensor

from rendering.rasterizer import Raster, rasterize, silhouette_loss
from rendering.uv_sphere import uv_sphere

SIZES = (64, 128, 192, 256)


def main() -> None:
    """Measures every combination and prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=16, help="meshes a call")
    parser.add_argument("--repeats", type=int, default=20, help="calls to take the median of")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    print(f"{'use':8}{'size':>6}{'threads':>9}{'ms/image':>10}")  # noqa: T201
    for size in SIZES:
        for use, function in uses(options.batch_size, size).items():
            for threads in sorted({1, os.cpu_count() or 1}):
                os.environ["TMG_THREADS"] = str(threads)
                milliseconds = median_time(function, options.repeats) / options.batch_size * 1e3
                print(f"{use:8}{size:6}{threads:9}{milliseconds:10.3f}")  # noqa: T201
                results.append(
                    {"use": use, "size": size, "threads": threads, "ms_per_image": milliseconds}
                )
    machine = {"torch": torch.__version__, "numba": numba.__version__, "cpu": platform.processor()}
    print(json.dumps({**machine, **vars(options), "results": results}))  # noqa: T201


def uses(batch_size: int, size: int) -> dict[str, Callable[[], object]]:
    """Returns the measured functions, forward and backward."""
    sphere = uv_sphere(31)
    faces, face_uvs = torch.as_tensor(sphere.faces), torch.as_tensor(sphere.face_uvs)
    uvs = torch.as_tensor(sphere.uvs).float()
    vertices = meshes(torch.as_tensor(sphere.vertices).float(), batch_size).requires_grad_()
    targets = rasterize(vertices.detach()[:1] * 0.9, faces, size).coverage[:, 0]
    index = torch.zeros(batch_size, dtype=torch.int64)

    def fused() -> object:
        loss, _ = silhouette_loss(vertices, faces, targets, index)
        return torch.autograd.grad(loss.sum(), vertices)

    def alpha() -> object:
        return torch.autograd.grad(total(rasterize(vertices, faces, size)), vertices)

    def uv() -> object:
        raster = rasterize(vertices, faces, size, uvs=uvs, face_uvs=face_uvs)
        return torch.autograd.grad(total(raster), vertices)

    return {"fused": fused, "alpha": alpha, "uv": uv}


def total(raster: Raster) -> Tensor:
    """Returns the sum of the differentiable images."""
    images = (image for image in (raster.attributes, raster.alpha) if image is not None)
    return torch.stack([image.sum() for image in images]).sum()


def meshes(sphere: Tensor, batch_size: int) -> Tensor:
    """Returns bumpy ellipsoids (B, V, 3), turned at random, that fill about half of the image."""
    generator = torch.Generator().manual_seed(1)
    turn, _ = torch.linalg.qr(torch.randn((batch_size, 3, 3), generator=generator))
    turn[:, :, 0] *= torch.linalg.det(turn)[:, None]  # no mirror images
    waves = 1 + 0.1 * torch.sin(5 * sphere.sum(1, keepdim=True))
    return (sphere * waves * torch.tensor([0.6, 0.95, 0.7])) @ turn.mT


def median_time(function: Callable[[], object], repeats: int) -> float:
    """Returns the median duration of a call in seconds, after two to warm up."""
    durations = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[2:])


if __name__ == "__main__":
    main()
