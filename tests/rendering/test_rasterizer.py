"""The CPU rasterizer against the naive one, stored renderings, and its promises."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rendering.rasterizer import rasterize, silhouette_loss

SIZE = 24
SEEDS = range(4)


def render(*arguments: Any, **options: Any) -> Any:
    """Rasterizes; the type hides that members may be None, which the tests would stumble over."""
    return rasterize(*arguments, **options)


def random_mesh(seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Returns vertices (B, 18, 3) and faces (F, 3): off-screen, slivers, degenerate, coincident."""
    generator = torch.Generator().manual_seed(seed)
    vertices = 0.8 * torch.randn((batch, 18, 3), generator=generator)
    vertices[:, 1, :2] = vertices[:, 0, :2] + 1e-3  # face (0, 1, 2) is a sliver
    vertices[:, 3:6, 2] = 0.25  # faces of these tie with their copies
    vertices[:, 6:9] += torch.tensor([3.0, 0.0, 0.0])  # out of the image
    vertices[:, 9, :2] = torch.tensor([-30.0, 40.0])  # far beyond it
    random = torch.randint(0, 18, (14, 3), generator=generator)
    special = [[0, 1, 2], [3, 4, 5], [3, 4, 5], [5, 4, 3], [6, 7, 8], [9, 10, 11], [2, 2, 3]]
    return vertices, torch.cat((random, torch.tensor(special)))


def small_sphere(batch: int = 4) -> tuple[Tensor, Tensor]:
    """Returns deformed octahedra (B, 66, 3) with closed faces (128, 3), seen from outside."""
    vertices = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    points, middles = [tuple(v.tolist()) for v in vertices], {}
    for _ in range(2):
        finer = []
        for face in faces:
            edges = [tuple(sorted((face[k], face[(k + 1) % 3]))) for k in range(3)]
            for a, b in edges:
                if (a, b) not in middles:
                    middle = np.add(points[a], points[b])
                    middles[a, b] = len(points)
                    points.append(tuple(middle / np.linalg.norm(middle)))
            m = [middles[edge] for edge in edges]
            a, b, c = face
            finer += [[a, m[0], m[2]], [m[0], b, m[1]], [m[2], m[1], c], m]
        faces = finer
    sphere = torch.tensor(points, dtype=torch.float32)
    scale = torch.linspace(0.4, 0.8, batch)[:, None, None]
    noise = torch.randn((batch, 1, 3), generator=torch.Generator().manual_seed(0))
    return scale * sphere + 0.1 * noise + 0.1 * sphere.roll(1, 1) ** 2, torch.tensor(faces)


def gradients(raster: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a fixed random functional of the images."""
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros((), dtype=torch.float64)
    for image in (raster.attributes, raster.alpha):
        if image is not None:
            total = total + (image * torch.randn(image.shape, generator=generator)).sum()
    return list(torch.autograd.grad(total, inputs))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference in units of the largest expected value."""
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cull", [True, False])
def test_alpha_and_its_gradient_equal_those_of_the_naive_rasterizer(seed: int, cull: bool) -> None:
    vertices, faces = random_mesh(seed)
    vertices.requires_grad_()
    options = {"cull": cull, "box_length": 0.1, "sharpness": 300.0, "max_faces": 6}
    fast = render(vertices, faces, SIZE, backend="numba", **options)
    naive = render(vertices, faces, SIZE, backend="dense", **options)
    assert torch.equal(fast.coverage.double(), naive.coverage)
    torch.testing.assert_close(fast.alpha.double(), naive.alpha, rtol=0, atol=5e-5)
    (actual,), (expected,) = gradients(fast, [vertices]), gradients(naive, [vertices])
    assert relative_error(actual, expected) < 1e-4


def test_boxes_across_words_of_64_columns_equal_those_of_the_naive_rasterizer() -> None:
    vertices, faces = small_sphere(1)
    vertices.requires_grad_()
    fast, naive = (
        render(vertices, faces, 77, sharpness=500.0, backend=backend)
        for backend in ("numba", "dense")
    )
    torch.testing.assert_close(fast.alpha.double(), naive.alpha, rtol=0, atol=1e-5)
    (actual,), (expected,) = gradients(fast, [vertices]), gradients(naive, [vertices])
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_attributes_and_their_gradients_equal_those_of_the_naive_rasterizer(seed: int) -> None:
    vertices, faces = random_mesh(seed)
    attributes = torch.randn((2, 18, 3), generator=torch.Generator().manual_seed(seed))
    inputs = [vertices.requires_grad_(), attributes.requires_grad_()]
    fast, naive = (
        render(vertices, faces, SIZE, attributes=attributes, soft=False, backend=backend)
        for backend in ("numba", "dense")
    )
    assert torch.equal(fast.face_index, naive.face_index)
    assert (fast.face_index >= 0).any()
    torch.testing.assert_close(fast.attributes.double(), naive.attributes, rtol=0, atol=1e-4)
    for actual, expected in zip(gradients(fast, inputs), gradients(naive, inputs), strict=True):
        assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("batched", [False, True])
def test_uv_images_and_their_gradients_equal_those_of_the_naive_rasterizer(batched: bool) -> None:
    vertices, faces = small_sphere(2)
    uvs = torch.rand((2, 30, 2) if batched else (30, 2), generator=torch.Generator().manual_seed(1))
    face_uvs = torch.arange(faces.numel()).reshape(faces.shape) % 30
    inputs = [vertices.requires_grad_(), uvs.requires_grad_()]
    fast, naive = (
        render(vertices, faces, SIZE, uvs=uvs, face_uvs=face_uvs, backend=backend)
        for backend in ("numba", "dense")
    )
    assert fast.attributes.shape == (2, 2, SIZE, SIZE)
    assert torch.equal(fast.face_index, naive.face_index)
    assert torch.equal(fast.face_index >= 0, fast.coverage[:, 0] > 0)
    torch.testing.assert_close(fast.attributes.double(), naive.attributes, rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.alpha.double(), naive.alpha, rtol=0, atol=1e-5)
    for actual, expected in zip(gradients(fast, inputs), gradients(naive, inputs), strict=True):
        assert relative_error(actual, expected) < 1e-4


@pytest.mark.slow
def test_two_hundred_meshes_keep_the_promised_accuracy() -> None:
    """Slivers, degenerate, coincident and far faces; meshes that are larger than the image."""
    for seed in range(100):
        vertices, faces = random_mesh(100 + seed)
        vertices[1] *= 3
        vertices.requires_grad_()
        fast, naive = (
            render(vertices, faces, SIZE, sharpness=300.0, box_length=0.1, backend=backend)
            for backend in ("numba", "dense")
        )
        torch.testing.assert_close(fast.alpha.double(), naive.alpha, rtol=0, atol=1e-5)
        (actual,), (expected,) = gradients(fast, [vertices]), gradients(naive, [vertices])
        assert relative_error(actual, expected) < 1e-4


def test_naive_gradients_equal_finite_differences() -> None:
    vertices = torch.tensor([[[-0.7, -0.6, 0.1], [0.8, -0.5, 0.2], [0.1, 0.7, 0.3]]]).double()
    attributes = torch.tensor([[[0.3, 1.0], [-0.5, 0.2], [0.9, -0.4]]]).double()
    faces = torch.tensor([[0, 1, 2]])

    def images(vertices: Tensor, attributes: Tensor) -> Tensor:
        raster = render(
            vertices,
            faces,
            6,
            attributes=attributes,
            sharpness=9.0,
            box_length=9.0,
            backend="dense",
        )
        return torch.cat((raster.attributes, raster.alpha), 1)

    inputs = (vertices.requires_grad_(), attributes.requires_grad_())
    assert torch.autograd.gradcheck(images, inputs, eps=1e-6, atol=1e-7)


def test_only_the_first_faces_count_outside_the_silhouette() -> None:
    vertices, faces = random_mesh(0, 1)
    few, all_faces = (
        render(vertices, faces, SIZE, sharpness=50.0, box_length=0.5, max_faces=n).alpha
        for n in (1, 255)
    )
    assert (few <= all_faces + 1e-6).all()
    assert (few < all_faces - 1e-2).any()


def test_stored_renderings_are_reproduced(shared: Path) -> None:
    golden = np.load(shared / "reference" / "golden" / "rendering.npz")
    sphere = np.load(shared / "reference" / "golden" / "sphere31.npz")
    vertices = torch.from_numpy(golden["camera_vertices"])
    faces = torch.from_numpy(sphere["faces"]).long()
    colors = torch.from_numpy(np.sin(0.19 * np.arange(2 * 962 * 4)).reshape(2, 962, 4)).float()
    raster = render(vertices, faces, 64, attributes=colors)
    hard = torch.from_numpy(golden["hard"])
    torch.testing.assert_close(raster.coverage, hard, rtol=0, atol=1e-5)
    torch.testing.assert_close(raster.alpha, torch.from_numpy(golden["soft"]), rtol=0, atol=1e-4)
    torch.testing.assert_close(raster.attributes, torch.from_numpy(golden["vc"]), rtol=0, atol=1e-4)
    sharp = render(vertices, faces, 64, sharpness=70000.0).alpha
    torch.testing.assert_close(sharp, torch.from_numpy(golden["soft_sigma0.1"]), rtol=0, atol=1e-4)


def everything(vertices: Tensor, faces: Tensor) -> list[Tensor]:
    """All images, losses and gradients of a batch."""
    vertices = vertices.clone().requires_grad_()
    raster = render(vertices, faces, SIZE, attributes=vertices.detach())
    targets = torch.ones((1, SIZE, SIZE)).tril()
    index = torch.zeros(len(vertices), dtype=torch.int64)
    loss, iou = silhouette_loss(vertices, faces, targets, index)
    weights = torch.linspace(0, 1, SIZE)
    total = (raster.alpha * weights).sum() + (raster.attributes * weights).sum()
    (first,) = torch.autograd.grad(total, vertices)
    (second,) = torch.autograd.grad(loss.sum(), vertices)
    return [raster.attributes, raster.coverage, raster.alpha, loss, iou, first, second]


def test_threads_and_batch_splits_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = small_sphere(5)
    monkeypatch.setenv("TMG_THREADS", "1")
    one = everything(vertices, faces)
    monkeypatch.setenv("TMG_THREADS", "2")
    two = everything(vertices, faces)
    parts = [everything(part, faces) for part in vertices.split(2)]
    for a, b, *c in zip(one, two, *parts, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, torch.cat(c))


@pytest.mark.parametrize("backend", ["numba", "dense"])
def test_the_silhouette_loss_equals_its_definition(backend: str) -> None:
    vertices, faces = small_sphere(3)
    vertices.requires_grad_()
    targets = (
        torch.rand((2, SIZE, SIZE), generator=torch.Generator().manual_seed(2)) > 0.5
    ).float()
    index = torch.tensor([1, 0, 1])
    loss, iou = silhouette_loss(vertices, faces, targets, index, sharpness=700.0, backend=backend)
    alpha = render(vertices, faces, SIZE, sharpness=700.0).alpha[:, 0]
    expected = (alpha - targets[index]).square().mean((1, 2))
    torch.testing.assert_close(loss, expected)
    inside, wanted = alpha > 0.5, targets[index] > 0.5
    overlap = (inside & wanted).sum((1, 2)) / (inside | wanted).sum((1, 2))
    torch.testing.assert_close(iou, overlap.float())
    weights = torch.tensor([1.0, -2.0, 0.5])
    (actual,) = torch.autograd.grad((loss * weights).sum(), vertices)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), vertices)
    assert relative_error(actual, gradient) < 1e-4


def test_a_mirrored_mesh_renders_the_mirrored_image() -> None:
    vertices, faces = small_sphere(2)
    mirrored = vertices * torch.tensor([-1.0, 1.0, 1.0])
    original = render(vertices, faces, SIZE, attributes=vertices[..., 2:])
    reflection = render(mirrored, faces.flip(1), SIZE, attributes=vertices[..., 2:])
    assert torch.equal(original.coverage, reflection.coverage.flip(3))
    torch.testing.assert_close(original.alpha, reflection.alpha.flip(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(original.attributes, reflection.attributes.flip(3))


def test_the_image_has_y_up_and_z_towards_the_viewer() -> None:
    triangle = torch.tensor([[0.5, 0.9], [0.2, 0.4], [0.8, 0.4]])  # upper right
    near, far = (torch.nn.functional.pad(triangle, (0, 1), value=z) for z in (0.5, -0.5))
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    raster = render(torch.cat((far, near))[None], faces, 32, soft=False)
    rows, columns = raster.coverage[0, 0].nonzero().T
    assert rows.max() < 16 <= columns.min()
    assert raster.face_index[0][rows, columns].unique().tolist() == [1]


def test_faces_turned_away_are_invisible_unless_asked_for() -> None:
    vertices = torch.tensor([[[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]]])
    away = torch.tensor([[0, 2, 1]])
    assert render(vertices, away, SIZE).coverage.sum() == 0
    double_sided = render(vertices, away, SIZE, cull=False, attributes=vertices)
    towards = render(vertices, away.flip(1), SIZE, attributes=vertices)
    assert torch.equal(double_sided.coverage, towards.coverage)
    torch.testing.assert_close(double_sided.attributes, towards.attributes)


@pytest.mark.parametrize("size", [1, 7, 63, 64, 65, 130])
def test_every_size_shows_a_face_that_fills_the_image(size: int) -> None:
    vertices = torch.tensor([[[-9.0, -9.0, 0.0], [9.0, -9.0, 0.0], [0.0, 20.0, 0.0]]])
    raster = render(vertices, torch.tensor([[0, 1, 2]]), size)
    assert raster.coverage.min() == raster.alpha.min() == 1


def test_many_huge_faces_need_more_room_than_is_set_aside() -> None:
    corners = torch.tensor([[-9.0, -9.0, 0.0], [0.0, 20.0, 0.0], [9.0, -9.0, 0.0]])
    vertices = corners.repeat(1, 40, 1).requires_grad_()
    faces = torch.arange(120).reshape(40, 3)  # all turned away: no coverage, 30 faces a pixel
    targets, index = torch.zeros((1, 100, 100)), torch.tensor([0])
    loss, _ = silhouette_loss(vertices, faces, targets, index, sharpness=0.03)
    expected = render(vertices, faces, 100, sharpness=0.03).alpha.square().mean()
    torch.testing.assert_close(loss[0], expected)
    (gradient,) = torch.autograd.grad(loss.sum(), vertices)
    assert gradient[0, :90].abs().sum() > 0
    assert gradient[0, 90:].abs().sum() == 0


@pytest.mark.parametrize("backend", ["numba", "dense"])
def test_an_empty_batch_gives_empty_images(backend: str) -> None:
    vertices, faces = small_sphere(1)
    none = vertices[:0].requires_grad_()
    raster = render(none, faces, SIZE, attributes=none, backend=backend)
    assert raster.attributes.shape == (0, 3, SIZE, SIZE)
    assert raster.coverage.shape == raster.alpha.shape == (0, 1, SIZE, SIZE)
    assert raster.face_index.shape == (0, SIZE, SIZE)
    index = torch.zeros(0, dtype=torch.int64)
    loss, iou = silhouette_loss(none, faces, torch.zeros((1, SIZE, SIZE)), index, backend=backend)
    assert loss.shape == iou.shape == (0,)


def test_a_mesh_without_faces_is_invisible() -> None:
    vertices, faces = small_sphere(1)
    raster = render(vertices, faces[:0], SIZE, attributes=vertices)
    assert raster.coverage.sum() == raster.alpha.sum() == raster.attributes.abs().sum() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vertices_that_are_not_finite_are_refused(value: float) -> None:
    vertices, faces = small_sphere(1)
    vertices[0, 3, 1] = value
    with pytest.raises(FloatingPointError, match="finite"):
        render(vertices, faces, SIZE)


def test_wrong_arguments_are_refused() -> None:
    vertices, faces = small_sphere(1)
    mask, index = torch.zeros((1, SIZE, SIZE)), torch.tensor([0])
    with pytest.raises(ValueError, match=r"vertices: expected shape \(B, V, 3\), got \(66, 3\)"):
        render(vertices[0], faces, SIZE)
    with pytest.raises(ValueError, match="faces: expected indices"):
        render(vertices[:, :10], faces, SIZE)
    with pytest.raises(ValueError, match="faces: expected int64"):
        render(vertices, faces.int(), SIZE)
    with pytest.raises(ValueError, match="attributes"):
        render(vertices, faces, SIZE, attributes=vertices[:, 1:])
    with pytest.raises(ValueError, match="face_uvs"):
        render(vertices, faces, SIZE, uvs=vertices[..., :2])
    for size in (0, 2**15):
        with pytest.raises(ValueError, match=f"size: expected 1 to 32767 pixels, got {size}"):
            render(vertices, faces, size)
    with pytest.raises(ValueError, match="max_faces"):
        render(vertices, faces, SIZE, max_faces=0)
    with pytest.raises(ValueError, match="target_index"):
        silhouette_loss(vertices, faces, mask, index + 1)
    with pytest.raises(ValueError, match="targets"):
        silhouette_loss(vertices, faces, mask[..., 1:], index)
