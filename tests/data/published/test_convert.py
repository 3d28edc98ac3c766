"""Published archives are listed, checked and converted; hostile ones change nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data import released
from data.cache import feature_statistics, pose_files, pseudo_files
from data.cache.storage import Origin
from data.detections import load_detections
from data.pseudo_ground_truth import PseudoGroundTruth
from data.published import convert
from data.run_lengths import decode_mask
from tests import hostile, published
from utils.cli import UserError


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    published.write_cache(tmp_path)
    return tmp_path


def test_published_caches_load_as_they_are(archive: Path) -> None:
    detections = load_detections("cub")
    assert [item.image_path for item in detections.items] == [
        f"datasets/cub/images/{i}.jpg" for i in range(published.COUNT)
    ]
    assert detections[1].bbox == (10, 6, 49, 39)
    assert decode_mask(detections[1].mask).sum() == 34 * 40
    assert [(p.name, p.frequency) for p in detections[0].parts] == [("head", 1.0)]
    poses = pose_files.load_estimated_poses(
        "cub", "singletpl", Origin(detections.fingerprint, "any")
    )
    assert poses.indices.tolist() == [0, 1, 2, 3]
    pose_files.load_hypotheses("cub", "singletpl", Origin(detections.fingerprint, "any"))
    sample = PseudoGroundTruth("cub", published.RESOLUTION, "singletpl", segmentation=True)[2]
    assert sample.texture.shape == (3, published.RESOLUTION, published.RESOLUTION)
    assert feature_statistics.load_statistics("cub").num_images == 2


def test_conversion_changes_the_form_and_not_the_content(archive: Path) -> None:
    def read() -> tuple:
        detections = load_detections("cub")
        poses = pose_files.load_estimated_poses(
            "cub", "singletpl", Origin(detections.fingerprint, "any")
        )
        metadata = pseudo_files.load_metadata("cub", "singletpl")
        item = pseudo_files.load_pseudo_item("cub", published.RESOLUTION, "singletpl", 1)
        return detections, poses, metadata, item

    before = read()
    released.main(["cache", "--check"])
    assert not (archive / "cache/cub/detections.json").exists()
    released.main(["cache"])
    after = read()
    assert after[0].items == before[0].items
    assert after[0].fingerprint != before[0].fingerprint
    for old, new in zip(before[1:], after[1:], strict=True):
        for a, b in zip(_leaves(old), _leaves(new), strict=True):
            assert np.array_equal(a, b)
    with np.load("cache/cub/poses_metadata_singletpl.npz", allow_pickle=False) as plain:
        assert "rotation" in plain
    with np.load(f"cache/cub/{_items()}/0.npz", allow_pickle=False) as plain:
        assert plain["texture"].dtype == np.float16
    counts = convert.inspect(Path("cache"), convert=True)
    assert counts["converted"] == 0  # the second time


def _leaves(value: object) -> list:
    if isinstance(value, tuple):
        return [leaf for member in value for leaf in _leaves(member)]
    return [value]


def _items() -> str:
    return f"pseudogt_{published.RESOLUTION}x{published.RESOLUTION}_singletpl"


def test_poses_of_the_published_detections_are_not_those_of_others(archive: Path) -> None:
    (archive / "cache/cub/detections.npy").rename("elsewhere.npy")
    with pytest.raises(UserError, match="other detections"):
        pose_files.load_estimated_poses("cub", "singletpl", Origin("abc", "any"))


def test_metadata_without_category_and_perspective_is_accepted(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "data/upstream/cub_poses_metadata_pickled.npz"
    path = tmp_path / "cache/cub/poses_metadata_singletpl.npz"
    path.parent.mkdir(parents=True)
    shutil.copy(source, path)
    released.main([str(tmp_path)])
    metadata = pseudo_files.read_metadata(path, "")
    plain = np.load(shared / "data/upstream/poses_plain_cub.npz")
    assert np.array_equal(metadata.rotation.numpy(), plain["rotation"])
    assert metadata.paths == plain["path"].tolist()
    assert not metadata.category.any()
    distance = 1 + metadata.z0.exp()
    assert torch.equal(distance + 1, distance)  # no perspective in single precision


def test_the_list_says_what_each_file_is(archive: Path, capsys) -> None:
    published.write_checkpoint(archive, "pretrained_cub_singletpl")
    (archive / "cache/notes.txt").write_text("?")
    templates = archive / "cache/remeshed_templates/singletpl/bird_templates.obj"
    templates.parent.mkdir(parents=True)
    templates.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    released.main([".", "--check"])
    out = capsys.readouterr().out
    assert "pickled    cache/cub/detections.npy: 4 objects of category bird" in out
    assert "unknown    cache/notes.txt" in out
    assert "bird_templates.obj: remeshed templates to look at, 1 triangles" in out
    assert "plain      checkpoints_gan/pretrained_cub_singletpl/checkpoint_latest.pth" in out
    assert "feature statistics of 2 images" in out


def test_text_in_files_cannot_write_lines_of_the_list(tmp_path: Path, capsys) -> None:
    """Neither a second line nor a command to the terminal."""
    state = {"generator": {"a": torch.ones(1)}, "epoch": "1\x1b[2J\nplain      elsewhere"}
    torch.save(state, tmp_path / "checkpoint_1.pth")
    (tmp_path / "notes\nplain").touch()
    released.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3
    assert "\x1b" not in out


SPOILED = {
    "unknown category dragon": lambda row: row.update({"class": "dragon"}),
    "leads out of the working directory": lambda row: row.update(image_path="../../etc/passwd"),
    "/etc/passwd leads out": lambda row: row.update(image_path="/etc/passwd"),
    "UnicodeDecodeError": lambda row: row["mask"].update(counts=b"0\xff"),
    "damaged run lengths": lambda row: row["mask"].update(counts=b"aaaaaaaaaaaaaaaaa"),
    "an image of 100000 x 100000": lambda row: (
        row.update(image_height=100_000, image_width=100_000),
        row["mask"].update(size=[100_000, 100_000]),
    ),
    "a mask of [8, 8] in an image of": lambda row: row["mask"].update(size=[8, 8]),
    "unknown part hat": lambda row: row["parts"][0].update({"class": "hat"}),
    "KeyError": lambda row: row.pop("bbox"),
    "a box (nan, 0.0, 1.0, 1.0)": lambda row: row.update(bbox=np.array([[np.nan, 0, 1, 1]])),
    "a box (9.0, 0.0, 5.0, 1.0)": lambda row: row.update(bbox=np.array([[9.0, 0, 5, 1]])),
    "a box (0.0, 0.0, 1000000000.0, 1.0)": lambda row: row.update(bbox=np.array([[0, 0, 1e9, 1]])),
}


@pytest.mark.parametrize("message", SPOILED)
def test_detections_with_dangerous_content_are_refused(archive: Path, message: str) -> None:
    rows = np.load("cache/cub/detections.npy", allow_pickle=True)
    SPOILED[message](rows[0])
    np.save("cache/cub/detections.npy", rows)
    with pytest.raises(UserError, match=r"detections\.npy") as refusal:
        load_detections("cub")
    assert message in str(refusal.value)


def test_every_hostile_file_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = hostile.write_all(tmp_path / "downloaded")
    assert len(paths) >= 50
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{len(paths)} files were refused"):
        released.main(["downloaded"])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not (tmp_path / hostile.MARK).exists()
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("refused")]) == len(paths)


def test_links_are_not_followed(archive: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(archive / "cache/cub", outside)
    (archive / "cache/linked").symlink_to(outside)
    (archive / "cache/poses_metadata_singletpl.npz").symlink_to(
        outside / "poses_metadata_singletpl.npz"
    )
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="2 files were refused"):
        released.main(["cache"])
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_a_folder_without_published_files_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="no published files"):
        released.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"does not exist\. Unpack"):
        released.main([str(tmp_path / "absent")])
