"""Official data sets are prepared from stand-ins of their layouts, as archives, folders and links."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from data import prepare
from data.cache.label_files import load_labels
from data.crops import ObjectImages, to_pixels
from data.definitions import SYNSETS
from data.detections import load_detections
from data.ground_truth import load_ground_truth, project_true
from data.preparation.archives import extract
from data.preparation.matlab import read_structures
from data.run_lengths import decode_mask, encode_mask
from geometry import quaternion
from utils.cli import UserError

SIZE = (150, 200)  # height, width
BOX = (40, 30, 159, 119)  # x1, y1, x2, y2, both ends included


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def object_mask() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[BOX[1] : BOX[3] + 1, BOX[0] : BOX[2] + 1] = 1
    return mask


def structures(rows: list[dict]) -> np.ndarray:
    """A MATLAB structure array."""
    array = np.zeros(len(rows), dtype=[(name, object) for name in rows[0]])
    for row, values in zip(array, rows, strict=True):
        for name, value in values.items():
            row[name] = value
    return array


def write_cmr(folder: Path, data: str, cameras: str, paths: list[str]) -> None:
    """Writes the two annotation files of CMR; one keypoint lies where the camera sees the origin."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "sfm").mkdir(exist_ok=True)
    parts = np.array([[101.0, 141], [76, 76], [1, 1]])
    records = [{"rel_path": p, "mask": object_mask(), "parts": parts} for p in paths]
    turn = quaternion.to_matrix(quaternion.from_view(*torch.tensor([30.0, 10, 0]).unbind()))
    camera = {"rot": turn.double().numpy(), "scale": 40.0, "trans": np.array([101.0, 76])}
    savemat(folder / f"data/{data}", {"images": structures(records)})
    savemat(folder / f"sfm/{cameras}", {"sfm_anno": structures([camera] * len(paths))})


def pack(folder: Path, archive: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(archive, "w:gz") as target:
            target.add(folder, folder.name)


def write_cub(folder: Path) -> list[str]:
    names = ["001.Albatross/a_1.jpg", "002.Wren/b_2.jpg"]
    for number, name in enumerate([*names, "002.Wren/not_annotated.jpg"]):
        photograph(folder / "CUB_200_2011/images" / name, number)
    return names


def check_truth(dataset: str) -> None:
    """The origin and the keypoint of the annotations are where our camera puts them."""
    detections = load_detections(dataset)
    truth = load_ground_truth(detections)
    assert truth is not None
    assert truth.known.all()
    box = ObjectImages(detections, 8).box(0)
    pixel = to_pixels(project_true(torch.zeros(1, 3), truth, 0)[:, :2], box)
    torch.testing.assert_close(pixel, torch.tensor([[100.5, 75.5]]))
    angle = quaternion.from_view(*torch.tensor([30.0, 10, 0]).unbind())
    assert quaternion.angle_between(truth.rotation[0], angle) < 0.1
    with np.load(f"datasets/{dataset}/ground_truth.npz") as arrays:
        assert arrays["keypoints"][0].tolist() == [[100.5, 75.5, 1], [140.5, 75.5, 1]]


@pytest.mark.parametrize("packed", [False, True])
def test_cub_with_the_annotations_of_cmr(tmp_path: Path, packed: bool) -> None:
    downloads = tmp_path / "downloads"
    names = write_cub(downloads)
    write_cmr(downloads / "cmr/cub", "train_cub_cleaned.mat", "anno_train.mat", names)
    source = downloads
    if packed:
        source = downloads / "CUB_200_2011.tgz"
        pack(downloads / "CUB_200_2011", source)
    prepare.main(["--dataset", "cub", "--source", str(source), str(downloads / "cmr")])
    detections = load_detections("cub")
    assert detections.category == "bird"
    assert [item.image_path for item in detections.items] == [
        f"datasets/cub/images/{name}" for name in names
    ]
    assert detections[0].bbox == BOX
    assert Path("datasets/cub/images", names[0]).is_symlink()
    species = load_labels("cub", ["species"], [item.image_path for item in detections.items])
    assert species.names == {"species": ["albatross", "wren"]}
    assert species.values.tolist() == [[0], [1]]
    check_truth("cub")


def test_cub_without_annotations_takes_its_segmentations(tmp_path: Path) -> None:
    write_cub(tmp_path / "datasets/cub")
    for path in Path("datasets/cub/CUB_200_2011/images").rglob("*.jpg"):
        mask = Path("datasets/cub/segmentations", path.parent.name, f"{path.stem}.png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(object_mask() * 204).save(mask)  # four of five people marked it
    prepare.main(["--dataset", "cub"])
    assert len(load_detections("cub")) == 3
    assert load_ground_truth(load_detections("cub")) is None


@pytest.mark.parametrize(("dataset", "name"), [("p3d_car", "car"), ("p3d_airplane", "aeroplane")])
@pytest.mark.parametrize("packed", [False, True])
def test_pascal3d_takes_the_images_of_imagenet(
    tmp_path: Path, dataset: str, name: str, packed: bool
) -> None:
    release = tmp_path / "downloads/PASCAL3D+_release1.1"
    paths = [f"{name}_imagenet\\n0_{i}.JPEG" for i in range(2)] + [f"{name}_pascal\\2008_1.jpg"]
    for number, path in enumerate(paths):
        photograph(release / "Images" / path.replace("\\", "/"), number)
    write_cmr(tmp_path / "cmr/p3d", f"{name}_train.mat", f"{name}_train.mat", paths)
    source = release.parent
    if packed:
        source = tmp_path / "PASCAL3D+_release1.1.zip"
        pack(release, source)
    prepare.main(["--dataset", dataset, "--source", str(source), "cmr"])
    assert [item.image_path for item in load_detections(dataset).items] == [
        f"datasets/{dataset}/images/{name}_imagenet/n0_{i}.JPEG" for i in range(2)
    ]
    check_truth(dataset)


def write_car_table(folder: Path, content: str) -> None:
    """The photographs of Pascal3D+ cars, with a table beside the annotations of CMR."""
    names = [f"car_imagenet\\n0_{i}.JPEG" for i in range(2)]
    for number, name in enumerate(names):
        photograph(folder / "PASCAL3D+_release1.1/Images" / name.replace("\\", "/"), number)
    write_cmr(folder, "car_train.mat", "car_train.mat", names)
    (folder / "p3d_labels.csv").write_text(content)


TABLE = "filename,primary,secondary,shape,valid\n"


def test_cars_of_pascal3d_bring_their_shapes_and_colors(tmp_path: Path) -> None:
    rows = "n0_1.JPEG,red,black,suv,1\nn0_0.JPEG,navy,,coupe,1\nn0_9.JPEG,red,,van,0\n"
    write_car_table(tmp_path / "datasets/p3d", TABLE + rows)
    prepare.main(["--dataset", "p3d_car"])
    photographs = [item.image_path for item in load_detections("p3d_car").items]
    labels = load_labels("p3d_car", ["shape", "color"], photographs)
    assert labels.names == {"shape": ["coupe", "suv"], "color": ["navy", "red"]}
    assert labels.values.tolist() == [[0, 0], [1, 1]]


def test_labels_that_a_user_has_written_stay(tmp_path: Path) -> None:
    write_car_table(tmp_path / "datasets/p3d", TABLE + "n0_0.JPEG,navy,,coupe,1\n")
    own = tmp_path / "datasets/p3d_car/labels.csv"
    own.parent.mkdir()
    own.write_text("image,color\nn0_0,blue\n")
    prepare.main(["--dataset", "p3d_car"])
    assert own.read_text() == "image,color\nn0_0,blue\n"


@pytest.mark.parametrize("content", ["filename,shape\nn0_0.JPEG,coupe\n", TABLE + "n0_0.JPEG\n"])
def test_a_damaged_table_of_cars_is_one_line(tmp_path: Path, content: str) -> None:
    write_car_table(tmp_path / "datasets/p3d", content)
    with pytest.raises(UserError, match=r"p3d_labels\.csv: cannot be read as a table of filename"):
        prepare.main(["--dataset", "p3d_car"])
    assert not Path("datasets/p3d_car/images").exists()


def write_synsets(folder: Path) -> None:
    """One synset as a folder, one as a link, one as an archive; the fourth is missing."""
    first, second, third = SYNSETS["zebra"][:3]
    photograph(folder / first / f"{first}_1.JPEG", 1)
    photograph(folder / "elsewhere" / f"{second}_2.JPEG", 2)
    (folder / second).symlink_to(folder / "elsewhere")
    photograph(folder / f"packed/{third}_3.JPEG", 3)
    with tarfile.open(folder / f"{third}.tar", "w") as target:
        target.add(folder / f"packed/{third}_3.JPEG", f"{third}_3.JPEG")


def instances(folder: Path, categories: list[str]) -> Path:
    """A COCO file with one object per photograph: polygons, run lengths, compressed run lengths."""
    mask = object_mask()
    x1, y1, x2, y2 = BOX
    polygon = [[x1, y1, x2 + 1, y1, x2 + 1, y2 + 1, x1, y2 + 1]]
    flat = np.flatnonzero(np.diff(mask.flatten(order="F"), prepend=0, append=0))
    lengths = np.diff(np.concatenate([[0], flat, [mask.size]])).tolist()
    forms = [polygon, {"size": SIZE, "counts": lengths}, encode_mask(mask > 0)]
    photographs = sorted({path.name for path in folder.rglob("*.JPEG")})
    content = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories)],
        "images": [
            {"id": i, "file_name": f"any/{name}", "height": SIZE[0], "width": SIZE[1]}
            for i, name in enumerate(photographs)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 0, "segmentation": forms[i % 3]}
            for i in range(len(photographs))
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_imagenet_with_masks_of_any_tool(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    write_synsets(downloads)
    write = ["--dataset", "imagenet_zebra", "--source", "downloads"]
    with pytest.raises(UserError, match=r"masks/ does not exist.*--mask_rcnn or --annotations"):
        prepare.main(write)
    path = instances(tmp_path, ["zebra"])
    prepare.main([*write, "--annotations", str(path)])
    detections = load_detections("imagenet_zebra")
    assert detections.category == "zebra"
    assert len(detections) == 3
    for item in detections.items:
        assert np.array_equal(decode_mask(item.mask), object_mask() > 0)


def test_all_prepares_what_there_is_and_names_the_rest(tmp_path: Path, capsys) -> None:
    write_synsets(tmp_path / "downloads")
    path = instances(tmp_path, ["zebra"])
    with pytest.raises(
        UserError, match=r"12 of 13 data sets are not prepared: imagenet_motorcycle"
    ):
        prepare.main(["--dataset", "all", "--source", "downloads", "--annotations", str(path)])
    assert len(load_detections("imagenet_zebra")) == 3
    assert "cub: none of downloads/" in capsys.readouterr().out


def test_missing_photographs_name_what_belongs_where() -> None:
    with pytest.raises(
        UserError, match=r"datasets/cub/ has its photographs\. Add --source with CUB"
    ):
        prepare.main(["--dataset", "cub"])
    with pytest.raises(UserError, match="--source nowhere does not exist"):
        prepare.main(["--dataset", "cub", "--source", "nowhere"])
    assert not Path("datasets").exists()


@pytest.mark.slow
def test_annotations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    names = write_cub(tmp_path / "datasets/cub")
    cmr = (tmp_path / "datasets/cub", "train_cub_cleaned.mat", "anno_train.mat")
    write_cmr(*cmr, [*names, "missing/c.jpg"])
    with pytest.raises(UserError, match=r"missing/c\.jpg does not exist, but"):
        prepare.main(["--dataset", "cub"])
    write_cmr(*cmr, ["../../../secret.jpg"])
    with pytest.raises(UserError, match="leads out of"):
        prepare.main(["--dataset", "cub"])
    write_cmr(*cmr, names)
    savemat(
        "datasets/cub/sfm/anno_train.mat",
        {"sfm_anno": structures([{"rot": 1, "scale": 1, "trans": 1}])},
    )
    with pytest.raises(UserError, match="has 1 cameras, but"):
        prepare.main(["--dataset", "cub"])
    Path("datasets/cub/data/train_cub_cleaned.mat").write_bytes(b"rubbish" * 100)
    with pytest.raises(UserError, match=r"train_cub_cleaned\.mat: cannot be read"):
        prepare.main(["--dataset", "cub"])
    assert not Path("datasets/cub/images").exists()


@pytest.mark.parametrize(
    ("record", "camera", "message"),
    [
        ({"mask": np.ones((3, 3, 3))}, {}, "mask is float64"),
        ({"parts": np.ones(3)}, {}, "the keypoints"),
        ({}, {"rot": np.full((3, 3), np.nan)}, "rot is float64"),
        ({}, {"rot": np.diag([1, 1, -1.0])}, "no rotation"),
        ({}, {"rot": 2 * np.eye(3)}, "no rotation"),
        ({}, {"scale": -1.0}, "a scale below 0"),
        ({}, {"trans": np.ones(3)}, "trans is float64"),
        ({}, {"trans": "x"}, "trans is <U1"),
    ],
)
def test_annotations_that_are_no_masks_and_cameras_are_refused(
    tmp_path: Path, record: dict, camera: dict, message: str
) -> None:
    names = write_cub(tmp_path / "datasets/cub")[:1]
    records = [{"rel_path": names[0], "mask": object_mask(), "parts": np.ones((3, 15))} | record]
    cameras = [{"rot": np.eye(3), "scale": 1.0, "trans": np.ones(2)} | camera]
    for name, key, rows in [
        ("data/train_cub_cleaned.mat", "images", records),
        ("sfm/anno_train.mat", "sfm_anno", cameras),
    ]:
        path = tmp_path / "datasets/cub" / name
        path.parent.mkdir()
        savemat(path, {key: structures(rows)})
    with pytest.raises(UserError, match=message):
        prepare.main(["--dataset", "cub"])
    assert not (tmp_path / "datasets/cub/images").exists()


def test_cameras_of_cmr_are_the_published_rotations(shared: Path) -> None:
    path = shared / "data/upstream/cub_sfm_anno_train.mat"
    cameras = read_structures(path, "sfm_anno", ("rot",), "")
    published = np.load(shared / "data/upstream/poses_plain_cub.npz")["rotation"]
    ours = quaternion.from_matrix(torch.from_numpy(np.stack([camera["rot"] for camera in cameras])))
    angles = quaternion.angle_between(ours, torch.from_numpy(published).double())
    assert angles.max() < 0.01  # degrees


def hostile_tar(kind: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as target:
        info = tarfile.TarInfo({"up": "../evil", "absolute": "/tmp/evil"}.get(kind, "evil"))
        types = {"symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
        info.type = types.get(kind, tarfile.REGTYPE)
        info.linkname = "../../secret" if kind in ("symlink", "link") else ""
        info.size = 2**28 if kind == "bomb" else 0
        target.addfile(info, io.BytesIO(bytes(info.size)) if kind == "bomb" else None)
    return out.getvalue()


def hostile_zip(kind: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        info = zipfile.ZipInfo({"up": "a/../../evil", "drive": "C:evil"}.get(kind, "evil"))
        info.compress_type = zipfile.ZIP_DEFLATED
        if kind == "symlink":
            info.external_attr = 0o120777 << 16
        target.writestr(info, bytes(2**28) if kind == "bomb" else b"../secret")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [(f"{k}.tgz", hostile_tar(k)) for k in ("up", "absolute", "symlink", "link", "device", "bomb")]
    + [(f"{k}.zip", hostile_zip(k)) for k in ("up", "drive", "symlink", "bomb")]
    + [("rubbish.tar", b"rubbish" * 99), ("rubbish.zip", b"rubbish"), ("empty.tar", b"")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_archives_leave_nothing_behind(tmp_path: Path, name: str, content: bytes) -> None:
    archive = tmp_path / name
    archive.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        extract(archive, tmp_path / "inside/out")
    assert "was not unpacked" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]
    assert files == [archive]
