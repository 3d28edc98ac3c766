"""Models in Python give what the commands export, and the examples of the documents run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

import textured_mesh_gan as tmg
from tests.conftest import REPOSITORY
from tests.pipeline.generation import toy as generation
from tests.pipeline.generation.conftest import toy  # noqa: F401 - a fixture
from tests.pipeline.reconstruction import toy as reconstruction
from tests.pipeline.reconstruction.conftest import toy as collection  # noqa: F401 - a fixture
from tests.pipeline.reconstruction.meshes.test_own_photographs import picture, reconstruct

GENERATOR = Path("checkpoints_gan/toy_singletpl/model.pth")
ESTIMATOR = Path("checkpoints_recon/toy_singletpl/model.pth")


@pytest.fixture
def generator(toy: Path) -> tmg.Generator:  # noqa: F811 - the fixture
    generation.run("--iters", "1")
    return tmg.load_generator(GENERATOR)


def equal(first: tmg.Mesh, second: tmg.Mesh) -> bool:
    """Whether two meshes are the same but for rounding, which depends on the batch they are made in."""
    levels = first.texture.astype(int) - second.texture
    return bool(np.allclose(first.vertices, second.vertices, atol=1e-5) and abs(levels).max() <= 1)


def assert_written(mesh: tmg.Mesh, path: Path) -> None:
    """Compares a mesh with the files of an exported one."""
    stored = trimesh.load(path, process=False, maintain_order=True)
    x, y, z = mesh.vertices.T
    corners = np.stack([x, z, -y], -1)[mesh.faces]  # y up
    assert isinstance(stored, trimesh.Trimesh)
    np.testing.assert_allclose(stored.vertices[stored.faces], corners, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(Image.open(path.with_suffix(".png"))), mesh.texture)


def test_samples_are_those_of_an_export(generator):
    generation.run("--export_sample", "--how_many", "3", "--seed", "5")
    for number, mesh in enumerate(generator.sample(3, seed=5)):
        assert_written(mesh, Path(f"output/toy_singletpl/mesh_{number}.obj"))


def test_samples_depend_on_seed_and_number_alone(generator):
    three = generator.sample(3)
    assert equal(three[0], generator.sample()[0])
    assert not equal(three[0], three[1])
    assert not equal(three[0], generator.sample(seed=2)[0])
    assert equal(three[2], generator.generate(generator.codes([2]))[0])


def test_a_walk_ends_where_it_should(generator):
    first, middle, last = generator.interpolate(0, 4, steps=3)
    ends = generator.sample(5)
    assert equal(first, ends[0])
    assert equal(last, ends[4])
    code = generator.codes([0, 4]).mean(0, keepdims=True)
    assert equal(middle, generator.generate(code)[0])


def test_saved_meshes_are_read_back(generator, tmp_path):
    (mesh,) = generator.sample()
    mesh.save(tmp_path / "a.obj")
    assert_written(mesh, tmp_path / "a.obj")
    mesh.save(tmp_path / "a.glb")
    stored = trimesh.load_mesh(tmp_path / "a.glb")
    assert len(stored.faces) == len(mesh.faces) == len(mesh.face_uvs) == 1920
    with pytest.raises(tmg.UserError, match=r"a\.ply: expected"):
        mesh.save(tmp_path / "a.ply")


def test_a_picture_shows_the_mesh_from_a_side(generator):
    (mesh,) = generator.sample()
    behind, front = (mesh.render(64, azimuth=angle, elevation=0) for angle in (180, 0))
    assert behind.shape == (64, 64, 3)
    outline = (behind < 255).any(-1)
    assert 0.1 < outline.mean() < 0.9
    # Silhouettes of opposite sides are mirror images, and a mesh is symmetric
    assert (outline != (front < 255).any(-1)[:, ::-1]).mean() < 0.02


@pytest.mark.slow
def test_a_photograph_gives_the_mesh_of_the_command(collection: Path):  # noqa: F811 - the fixture
    reconstruction.run("--iters", "1", "--student_weight", "0")
    colors, mask = picture()
    Image.fromarray(colors).save("a.png")
    Image.fromarray(mask).save("mask.png")
    reconstruct("--photo", "a.png", "--mask", "mask.png")
    estimator = tmg.load_estimator(ESTIMATOR)
    mesh = estimator.estimate("a.png", "mask.png", texture_resolution=32)
    assert_written(mesh, Path("output/toy_singletpl_photographs/a/mesh.obj"))


def test_a_photograph_that_is_missing_is_named_without_a_collection(collection: Path):  # noqa: F811
    reconstruction.run("--iters", "1", "--student_weight", "0")
    estimator = tmg.load_estimator("checkpoints_recon/toy_singletpl/model.pth")
    with pytest.raises(tmg.UserError, match=r"^no\.jpg does not exist\.$"):
        estimator.estimate("no.jpg")


def test_mistakes_are_one_line(generator):
    with pytest.raises(tmg.UserError, match=r"no\.pth"):
        tmg.load_generator("no.pth")
    with pytest.raises(tmg.UserError, match="dragon"):
        generator.sample(category="dragon")
    with pytest.raises(ValueError, match=r"expected shape \(B, 64\)"):
        generator.generate(np.zeros((1, 3), np.float32))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tmg.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_no_pytorch():
    code = "import sys, textured_mesh_gan as t; dir(t); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_the_examples_of_the_document_run(generator, tmp_path, request, capsys):
    # Models of the names that the document has, and a photograph
    shutil.copytree(
        "checkpoints_gan/toy_singletpl",
        tmp_path / "checkpoints_gan/pretrained_synthetic_car_singletpl",
    )
    request.getfixturevalue("collection")
    reconstruction.run("--iters", "1", "--student_weight", "0")
    runs = tmp_path / "checkpoints_recon/pretrained_synthetic_car_singletpl"
    if not runs.exists():
        shutil.copytree("checkpoints_recon/toy_singletpl", runs)
    for array, name in zip(picture(), ("my_car.jpg", "my_mask.png"), strict=True):
        Image.fromarray(array).save(name)
    scope: dict = {}
    for document, count in ("README.md", 1), ("docs/api.md", 4):
        text = (REPOSITORY / document).read_text()
        blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        assert len(blocks) == count
        for block in blocks:
            exec(block, scope)
    assert {"car_3.glb", "my_car.obj"} <= {path.name for path in Path().iterdir()}
    np.testing.assert_allclose(scope["size"].detach()[:2], [0.8, 0.4], atol=0.04)
