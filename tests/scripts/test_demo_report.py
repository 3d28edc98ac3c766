import pytest

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


def test_the_table_holds_the_time_and_the_quality_of_every_stage(tmp_path, capsys):
    write_metrics()
    durations = "environment\t100\nposes, step 2\t50\nenvironment\t2.4\nGAN, evaluated\t3\n"
    (tmp_path / "durations.tsv").write_text(durations)
    demo_report.main(["--dataset", "birds", "--name", "demo", "--output", "."])
    table = (tmp_path / "report.txt").read_text().splitlines()
    assert table == [
        "stage           time  quality",
        "environment     1:42",
        "poses, step 2   0:50  20 of 30 kept, rotation error of these: "
        "median 12.3 degrees, 88% under 30",
        "GAN, evaluated  0:03  proxy distance (not FID) 3.2",
        "all             2:35",
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
