from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import demo_report
from utils.cli import UserError
from utils.files import write_json
from utils.run_directory import RunDirectory


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_metrics():
    rotation = {"median_degrees": 12.34, "share_under_30": 0.875}
    step = {"singletpl": {"images": 30, "kept": 20, "rotation_of_kept": rotation}}
    write_json("cache/birds/metrics.json", {"step1": step, "step2": step})
    recon = RunDirectory("checkpoints_recon/demo")
    recon.record(step=10, iou=0.5, soft_iou=0.4)
    recon.record(step=20, iou=0.8765, soft_iou=0.8)
    recon.record(step=30, iou=0.9)  # of a training step
    RunDirectory("checkpoints_gan/demo").record(step=20, proxy=3.21)


def write_pictures():
    """Writes what the stages leave, each picture in a gray of its own."""
    for number in range(15):
        path = Path(f"datasets/birds/images/{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (10 * number,) * 3).save(path)
    for name in (
        "demo.png",
        "birds_poses_singletpl.png",
        "demo_meshes/turntable.gif",
        "demo/walk.gif",
    ):
        path = Path("output", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for name in ("demo_meshes", "demo"):
        Path("output", name, "index.html").write_text(name)


def test_the_page_shows_the_pictures_of_all_stages(tmp_path):
    write_metrics()
    write_pictures()
    (tmp_path / "durations.tsv").write_text("a<b\t1\n")
    for _ in range(2):  # the second time, all is there
        demo_report.main(["--dataset", "birds", "--name", "demo", "--output", "."])
    page = (tmp_path / "index.html").read_text()
    assert "a&lt;b" in page
    for section in demo_report.SECTIONS:
        assert f'src="{section.picture}"' in page
        assert (tmp_path / section.picture).exists()
        assert not section.link or (tmp_path / section.link).exists()
    assert (tmp_path / "photographs_to_meshes.gif").read_text() == "demo_meshes/turntable.gif"
    assert (tmp_path / "meshes" / "index.html").read_text() == "demo"
    # Twelve of the fifteen photographs: 0, 1, 2, 3, 5, 6, 7, 8, 10, ...
    sheet = np.asarray(Image.open(tmp_path / "photographs.png"))
    assert sheet.shape == (320, 960, 3)
    assert sheet[80::160, 80::160, 0].tolist() == [
        [0, 10, 20, 30, 50, 60],
        [70, 80, 100, 110, 120, 130],
    ]
    # They are 3 : 2, and keep these proportions
    assert (sheet[[25, 133, 185, 293]] == 255).all()
    assert (sheet[[27, 131, 187, 291]] < 255).all()


def test_the_table_holds_the_time_and_the_quality_of_every_stage(tmp_path, capsys):
    write_metrics()
    write_pictures()
    durations = "environment\t100\nposes, step 2\t50\nenvironment\t2.4\ngenerator, evaluated\t3\n"
    (tmp_path / "durations.tsv").write_text(durations)
    demo_report.main(["--dataset", "birds", "--name", "demo", "--output", "."])
    table = (tmp_path / "report.txt").read_text().splitlines()
    assert table == [
        "stage                 time  quality",
        "environment           1:42",
        "poses, step 2         0:50  20 of 30 kept, rotation error of these: "
        "median 12.3 degrees, 88% under 30",
        "generator, evaluated  0:03  proxy distance (not FID) 3.2",
        "all                   2:35",
    ]
    assert "\n".join(table) in capsys.readouterr().out


def test_the_latest_evaluation_counts():
    write_metrics()
    assert demo_report.read_qualities("birds", "demo")["reconstruction, evaluated"] == "IoU 0.876"


def test_without_the_demo_there_is_one_line_that_names_it():
    with pytest.raises(UserError, match=r"durations\.tsv does not exist.*demo\.sh"):
        demo_report.main(["--dataset", "birds", "--name", "demo", "--output", "."])


def test_a_run_that_was_not_evaluated_is_named():
    write_metrics()
    RunDirectory("checkpoints_gan/other").record(step=1, loss_g=1.0)
    with pytest.raises(UserError, match="no 'proxy'"):
        demo_report._latest("checkpoints_gan/other", "proxy")
