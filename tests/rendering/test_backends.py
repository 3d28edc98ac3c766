"""Choice of the backends, threads and processes, and the wrapper of Kaolin."""

import importlib
import multiprocessing
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rendering.backends import Options
from rendering.rasterizer import available_backends, set_backend
from tests.rendering.test_rasterizer import SIZE, render, small_sphere
from utils.cli import UserError


def test_backends_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMG_RASTERIZER", "auto")
    vertices, faces = small_sphere(1)
    assert {"numba", "dense"} <= set(available_backends())
    set_backend("dense")
    assert render(vertices, faces, SIZE).alpha.dtype == torch.float64
    set_backend("auto")
    assert render(vertices, faces, SIZE).alpha.dtype == torch.float32
    with pytest.raises(UserError, match="not known"):
        set_backend("opengl")


@pytest.mark.parametrize("threads", ["0", "-1", "many"])
def test_a_wrong_number_of_threads_is_refused(
    threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMG_THREADS", threads)
    with pytest.raises(UserError, match="TMG_THREADS: expected a positive number"):
        render(*small_sphere(2), SIZE)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_processes_render(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMG_THREADS", "2")
    vertices, faces = small_sphere(2)
    expected = render(vertices, faces, SIZE).alpha.sum().item()  # starts the pool of the parent
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.apply_async(alpha_sum, (vertices.numpy(), faces.numpy()))
        assert result.get(timeout=60) == expected


def alpha_sum(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Renders in another process."""
    raster = render(torch.from_numpy(vertices), torch.from_numpy(faces), SIZE)
    return raster.alpha.sum().item()


def test_the_kaolin_wrapper_speaks_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = small_sphere(2)
    seen = {}

    def dibr(
        height: int, width: int, z: Tensor, xy: Tensor, shown: Tensor, normal: Tensor, **more: Any
    ) -> Any:
        seen.update(more, shapes=[t.shape for t in (z, xy, shown, normal)])
        raster = render(vertices, faces, height, attributes=vertices)
        return raster.attributes.permute(0, 2, 3, 1), raster.alpha[:, 0], raster.face_index

    mesh = SimpleNamespace(dibr_rasterization=dibr)
    monkeypatch.setitem(sys.modules, "kaolin", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "kaolin.render", SimpleNamespace(mesh=mesh))
    kaolin = importlib.import_module("rendering.backends.kaolin_cuda")
    monkeypatch.delitem(sys.modules, "rendering.backends.kaolin_cuda")
    expected = render(vertices, faces, SIZE, attributes=vertices)
    actual = kaolin.rasterize(vertices, faces, vertices, faces, Options(SIZE))
    for image, wanted in zip(actual, expected, strict=True):
        assert torch.equal(image, wanted)
    assert seen == {
        "sigmainv": 7000.0,
        "boxlen": 0.02,
        "knum": 30,
        "shapes": [(2, 128, 3), (2, 128, 3, 2), (2, 128, 3, 3), (2, 128)],
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_meshes_are_rendered_on_the_cpu_on_request() -> None:
    vertices, faces = small_sphere(2)
    on_gpu = vertices.cuda().requires_grad_()
    raster = render(on_gpu, faces.cuda(), SIZE, attributes=on_gpu, backend="numba")
    assert raster.alpha.is_cuda
    assert torch.equal(raster.alpha.cpu(), render(vertices, faces, SIZE).alpha)
    assert torch.autograd.grad(raster.alpha.sum(), on_gpu)[0].is_cuda


@pytest.mark.skipif("kaolin" in available_backends(), reason="Kaolin is installed")
def test_a_missing_kaolin_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match="rasterizer 'kaolin' lacks the package kaolin"):
        render(*small_sphere(1), SIZE, backend="kaolin")
