"""The GPU rasterizer against the naive one: on a GPU where there is one, else in the interpreter."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rendering import rasterizer
from tests.conftest import REPOSITORY
from tests.rendering.test_rasterizer import gradients, random_mesh, relative_error, render
from utils.cli import UserError

pytestmark = pytest.mark.gpu  # without one in the interpreter
pytest.importorskip("triton", reason="Triton belongs to PyTorch's CUDA builds")
SIZE = 16
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SOFT = {"sharpness": 300.0, "box_length": 0.1, "max_faces": 4}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, and some that reach beyond the image, in small images."""
    monkeypatch.setattr("rendering.backends.triton_cuda._TILE", 8)


def both(vertices: Tensor, faces: Tensor, size: int, **options: Any) -> list[Any]:
    """Renders with Triton and naively: pairs of raster and gradients of the differentiable inputs."""
    results = []
    for backend, device in (("triton", DEVICE), ("dense", "cpu")):
        leaves = {"vertices": vertices.clone().to(device).requires_grad_()}
        if "attributes" in options:
            leaves["attributes"] = options["attributes"].clone().to(device).requires_grad_()
        arguments = {**options, **leaves, "faces": faces.to(device), "backend": backend}
        raster = render(size=size, **arguments)
        cpu = raster._replace(**{k: v.cpu() for k, v in raster._asdict().items() if v is not None})
        found = gradients(cpu, list(leaves.values()))
        results.append((cpu, [gradient.cpu() for gradient in found]))
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("cull", "size"), [(True, 16), (False, 20)])
def test_images_and_gradients_equal_those_of_the_naive_rasterizer(cull: bool, size: int) -> None:
    vertices, faces = random_mesh(1, batch=1)
    attributes = torch.randn((1, 18, 3), generator=torch.Generator().manual_seed(2))
    (fast, found), (naive, expected) = both(
        vertices, faces, size, attributes=attributes, cull=cull, **SOFT
    )
    assert torch.equal(fast.face_index, naive.face_index)
    assert (fast.face_index >= 0).any()
    torch.testing.assert_close(fast.alpha.double(), naive.alpha, rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.attributes.double(), naive.attributes, rtol=0, atol=1e-4)
    for actual, wanted in zip(found, expected, strict=True):
        assert relative_error(actual, wanted) < 1e-4


@pytest.mark.slow
def test_the_fused_loss_equals_that_of_the_naive_rasterizer() -> None:
    vertices, faces = random_mesh(3)
    targets = torch.ones((1, SIZE, SIZE)).tril()
    results = []
    for backend, device in (("triton", DEVICE), ("dense", "cpu")):
        leaf = vertices.clone().to(device).requires_grad_()
        index = torch.zeros(2, dtype=torch.int64, device=device)
        loss, iou = rasterizer.silhouette_loss(
            leaf, faces.to(device), targets.to(device), index, sharpness=300.0, backend=backend
        )
        (gradient,) = torch.autograd.grad((loss * loss.new_tensor([1.0, -2.0])).sum(), leaf)
        results.append([x.cpu() for x in (loss, iou, gradient)])
    (loss, iou, gradient), expected = results
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(iou, expected[1])
    assert relative_error(gradient, expected[2]) < 1e-4


@pytest.mark.slow
def test_the_split_of_a_batch_does_not_change_a_bit() -> None:
    vertices, faces = random_mesh(0)
    whole = alpha_and_gradient(vertices, faces)
    parts = [alpha_and_gradient(part, faces) for part in vertices.split(1)]
    for together, *apart in zip(whole, *parts, strict=True):
        assert torch.equal(together, torch.cat(apart))


def alpha_and_gradient(vertices: Tensor, faces: Tensor) -> list[Tensor]:
    """Soft silhouettes, and the gradient of their sum weighted by the column."""
    leaf = vertices.clone().to(DEVICE).requires_grad_()
    alpha = render(leaf, faces.to(DEVICE), SIZE, backend="triton", **SOFT).alpha
    total = (alpha * torch.linspace(0, 1, SIZE, device=DEVICE)).sum()
    return [alpha.detach().cpu(), torch.autograd.grad(total, leaf)[0].cpu()]


@pytest.mark.parametrize("shape", [(0, 18), (1, 18)])
def test_nothing_to_render_gives_empty_images(shape: tuple[int, int]) -> None:
    vertices = torch.zeros((*shape, 3), device=DEVICE, requires_grad=True)
    faces = torch.zeros((0, 3), dtype=torch.int64, device=DEVICE)
    raster = render(vertices, faces, SIZE, attributes=vertices, backend="triton")
    assert raster.attributes.shape == (shape[0], 3, SIZE, SIZE)
    assert not raster.coverage.any()
    assert not torch.autograd.grad(raster.alpha.sum(), vertices)[0].any()


KERNELS = {  # kernel -> types of its arguments (p = float pointer, q = integer pointer), constants
    "render_tiles": (
        "pqqqqpqpqpiiiffi",
        {"CULL": True, "SOFT": True, "COMPARE": True, "TILE": 16},
    ),
    "soft_gradient": ("pqpqpiiiff", {"BLOCK": 128}),
    "interpolate": ("pqpqqpiiii", {"BLOCK": 128}),
    "corner_sums": ("pqqppiiii", {"BLOCK": 128}),
    "gather_corners": ("pqqpiii", {"CHANNELS": 4}),
}


COMPILE = """
import itertools
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from rendering.backends import triton_kernels

kinds = {"p": "*fp32", "q": "*i32", "i": "i32", "f": "fp32"}
ones = {"size", "tiles", "channels", "num_faces", "max_faces"}  # compiled apart where they are 1
for (name, (types, constants)), special in itertools.product(KERNELS.items(), (False, True)):
    function = getattr(triton_kernels, name)
    runtime = [argument for argument in function.arg_names if argument not in constants]
    signature = dict(zip(runtime, (kinds[kind] for kind in types), strict=True))
    constants = constants | dict.fromkeys(ones.intersection(runtime) if special else (), 1)
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    assert ".visible .entry" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
"""


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    """The interpreter accepts more than the compiler, which needs no GPU."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    program = f"KERNELS = {KERNELS}" + COMPILE
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,  # Triton reads its kernels from files
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr


def test_a_missing_gpu_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if DEVICE == "cuda":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    vertices, faces = random_mesh(0, batch=1)
    with pytest.raises(UserError, match="rasterizer 'triton' lacks a CUDA device"):
        render(vertices, faces, SIZE, backend="triton")
