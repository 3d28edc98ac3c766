"""The commands of the published README on stand-ins for the published archives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import run_generation
import run_reconstruction
from data import released
from data.cache import feature_statistics
from data.detections import load_detections
from data.pseudo_ground_truth import PseudoGroundTruth
from geometry.sphere_mesh import SphereMesh
from pipeline.generation.config import make_config
from pipeline.generation.model_file import load_generator
from tests import published
from tests.models.golden import fill, key_list, wave
from utils import checkpoint
from utils.cli import UserError

NAME = "pretrained_cub_singletpl"
COMMAND = ["--name", NAME, "--dataset", "cub", "--gpu_ids", "cpu"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and those files of the cache that evaluation and export need."""
    monkeypatch.chdir(tmp_path)
    published.write_cache(tmp_path)
    published.write_checkpoint(tmp_path, NAME)
    shutil.rmtree("datasets")
    shutil.rmtree(next(Path("cache/cub").glob("pseudogt_*")))
    return tmp_path


@pytest.mark.parametrize(("rings", "vertices"), [(31, 962), (16, 482)])
def test_export_needs_no_data_set(archive: Path, rings: int, vertices: int) -> None:
    published.write_checkpoint(archive, NAME, f"uvsphere_{rings}rings.obj")
    run_generation.main([*COMMAND, "--batch_size", "2", "--export-sample", "--how_many", "2"])
    text = (archive / f"output/{NAME}/mesh_1.obj").read_text()
    assert text.count("\nv ") == vertices
    mesh = trimesh.load_mesh(archive / f"output/{NAME}/mesh_1.obj", process=False)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).volume > 0


@pytest.mark.slow
def test_the_model_of_all_categories_exports_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    published.write_cache(tmp_path, "all")
    published.write_checkpoint(tmp_path, "pretrained_all_singletpl", classes=13)
    command = ["--name", "pretrained_all_singletpl", "--dataset", "all", "--conditional_class"]
    command += ["--gpu_ids", "cpu", "--batch_size", "1", "--export_sample", "--how_many", "1"]
    run_generation.main(command)
    mesh = tmp_path / "output/pretrained_all_singletpl/mesh_0.png"
    first = mesh.read_bytes()
    with pytest.raises(UserError, match=r"filter_class None, now truck.*--overwrite"):
        run_generation.main([*command, "--filter_class", "truck"])
    assert mesh.read_bytes() == first
    run_generation.main([*command, "--filter_class", "truck", "--overwrite"])
    assert mesh.read_bytes() != first  # the code is the same, the category is not


@pytest.mark.slow
def test_evaluation_needs_no_data_set(archive: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), "weights.pth")
    options = ["--evaluate", "--inception_weights", "weights.pth", "--batch_size", "4"]
    run_generation.main([*COMMAND, *options])
    line = (archive / f"checkpoints_gan/{NAME}/metrics.jsonl").read_text().splitlines()[-1]
    record = json.loads(line)
    assert record["fid"] > 0


@pytest.mark.slow
def test_a_published_checkpoint_gives_the_golden_output(shared: Path, tmp_path: Path) -> None:
    """The key lists' names in the file, filled by formula; spectral vectors of length 40 and 1."""
    from models.generator import Generator

    keys = key_list(shared, "generator_512_uncond")
    network = Generator(512)
    fill(network, keys)
    state = {key: network.state_dict()[key] for key, _ in keys}
    path = tmp_path / "checkpoint_latest.pth"
    torch.save({"generator_running_avg": state}, path)
    config = make_config(vars(run_generation.build_parser().parse_args(COMMAND)))
    generator = load_generator(config.model, path, checkpoint.load(path), torch.device("cpu"))
    golden = np.load(shared / "reference/golden/networks.npz")
    with torch.no_grad():
        texture, displacement = generator(wave(0.37, 2, 64))
    np.testing.assert_allclose(texture[:, :, ::37, ::41], golden["gen0_tex_sub"], 1e-4, 1e-5)
    np.testing.assert_allclose(displacement, golden["gen0_mesh"], 1e-5, 1e-6)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"texture_resolution": 10**9}, "another architecture"),
        ({"latent_dim": 10**12}, "another architecture"),
        ({"texture_resolution": "512"}, "texture_resolution='512'"),
        ({"mesh_path": "../../secret"}, "--mesh_path"),
        (["a"], "args are a list"),
    ],
)
def test_absurd_options_in_a_checkpoint_are_refused(archive: Path, args, message: str) -> None:
    path = archive / f"checkpoints_gan/{NAME}/checkpoint_latest.pth"
    state = torch.load(path, weights_only=True)
    args = {**state["args"], **args} if isinstance(args, dict) else args
    torch.save({**state, "args": args}, path)
    with pytest.raises(UserError, match=message):
        run_generation.main([*COMMAND, "--batch_size", "1", "--export_sample"])


def test_a_generator_that_diverged_is_refused(archive: Path) -> None:
    path = archive / f"checkpoints_gan/{NAME}/checkpoint_latest.pth"
    state = torch.load(path, weights_only=True)
    state["generator_running_avg"] |= {"conv_mesh.weight": torch.full((3, 64, 5, 5), torch.nan)}
    torch.save(state, path)
    with pytest.raises(UserError, match="not finite"):
        run_generation.main([*COMMAND, "--batch_size", "1", "--export_sample"])
    assert not (archive / "output").exists()


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the predecessor's command for pseudo-ground-truth needs."""
    monkeypatch.chdir(tmp_path)
    published.write_cache(tmp_path)
    shutil.rmtree(next(Path("cache/cub").glob("pseudogt_*")))
    templates = tmp_path / "cache/remeshed_templates/singletpl"
    templates.mkdir(parents=True)
    torch.save(SphereMesh().vertices[None], templates / "bird_templates.pth")
    return tmp_path


def generate_pseudogt() -> None:
    options = ["--batch_size", "10", "--generate_pseudogt", "--num_workers", "1"]
    resolution = ["--pseudogt_resolution", str(published.RESOLUTION)]
    run_reconstruction.main([*COMMAND, *options, *resolution])


@pytest.mark.slow
@pytest.mark.parametrize("converted", [False, True])
def test_pseudo_ground_truth_is_made_of_published_poses(photographs: Path, converted: bool) -> None:
    published.write_reconstruction(photographs, NAME)
    if converted:
        released.main(["cache"])
    generate_pseudogt()
    dataset = PseudoGroundTruth("cub", published.RESOLUTION, "singletpl")
    assert len(dataset) == published.COUNT
    assert dataset[3].alpha.max() == 1
    statistics = feature_statistics.load_statistics("cub", "proxy")
    assert statistics.images == load_detections("cub").fingerprint


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"image_resolution": 32 * 10**6}, "does not fit this dataset"),
        ({"image_resolution": "256"}, "image_resolution='256'"),
    ],
)
def test_absurd_estimators_are_refused(photographs: Path, args: dict, message: str) -> None:
    published.write_reconstruction(photographs, NAME, **args)
    with pytest.raises(UserError, match=message):
        generate_pseudogt()


def test_poses_beyond_the_detections_are_refused(photographs: Path) -> None:
    published.write_reconstruction(photographs, NAME)
    path = photographs / "cache/cub/poses_estimated_singletpl.bin"
    poses = torch.load(path, weights_only=True)
    torch.save(poses | {"indices": torch.tensor([0, 1, 2, 50])}, path)
    with pytest.raises(UserError, match="cub has 4 objects, but poses refer to row 50"):
        generate_pseudogt()


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".hidden", "/etc", "a\\b", "-rf", "a\nb", ""]
)
@pytest.mark.parametrize("option", ["--name", "--dataset"])
def test_names_that_lead_elsewhere_are_usage_errors(option: str, name: str) -> None:
    arguments = dict(zip(COMMAND[::2], COMMAND[1::2], strict=True)) | {option: name}
    with pytest.raises(SystemExit) as end:
        run_generation.main([f"{key}={value}" for key, value in arguments.items()])
    assert end.value.code == 2
