"""The benchmark of poses as a whole, on three synthetic photographs."""

import json
from pathlib import Path

import pytest

from benchmarks import pose_accuracy
from utils.cli import UserError

QUICK = [
    *("--collections", "synthetic_car"),
    *("--step1_options", "--image_resolution 64 --refine_steps 2"),
    *("--step2_options", "--image_resolution 64 --refine_steps 2 --semantic_rounds 1"),
]


def measure(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict, list[str]]:
    """Runs the benchmark; returns its JSON and the stages that it ran."""
    pose_accuracy.main([*QUICK, *words])
    output = capsys.readouterr()
    return json.loads(output.out.splitlines()[-1]), output.err.splitlines()


@pytest.mark.slow
def test_stages_run_once_and_all_images_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(pose_accuracy, "SYNTHETIC_IMAGES", 3)
    monkeypatch.chdir(tmp_path)
    record, stages = measure(capsys, "--folder", "work", "--ablation")
    found = record["halves"]["reporting"]["synthetic_car"]
    assert record["halves"]["choosing"] == {}
    assert found["all"]["images"] == 3
    assert 0 < found["all"]["calibration_error"] < 1
    assert "without part maps" in found
    assert len(stages) == 3 + len(found)
    # The same again takes what is there
    again, stages = measure(capsys, "--folder", "work", "--ablation")
    assert again == record
    assert stages == []
    # What was printed can be printed again
    (tmp_path / "records.txt").write_text(f"{json.dumps(record)}\n")
    pose_accuracy.main(["--records", "records.txt"])
    assert "synthetic_car" in capsys.readouterr().out
    # Other options need another folder, or leave step 1 alone
    with pytest.raises(UserError, match="holds results of other sources or options"):
        pose_accuracy.main([*QUICK, "--folder", "work", "--step2_options", "--refine_steps 0"])
    _, stages = measure(capsys, "--folder", "work", "--step2_only", "--step2_options", "--seed 2")
    assert stages == ["synthetic_car: step 2, all"]
    assert Path.cwd() == tmp_path


def test_missing_collections_and_checkouts_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"realcars does not exist\. --data names the folder"):
        pose_accuracy.main(["--collections", "realcars", "--data", str(tmp_path)])
    with pytest.raises(UserError, match=r"--repository .*: fatal: not a git repository"):
        pose_accuracy.main(["--collections", "realcars", "--repository", str(tmp_path)])


def test_records_of_several_runs_make_one_table(tmp_path: Path):
    path = tmp_path / "records.txt"
    lines = [
        {"halves": {"choosing": {"a": {"all": {"images": 1}}}, "reporting": {}}},
        {"halves": {"choosing": {}, "reporting": {"b": {"all": {"images": 2}}}}},
        {"halves": {"reporting": {"b": {"without features": {"images": 2}}}}},
    ]
    path.write_text("seconds and\n" + "\n".join(map(json.dumps, lines)))
    assert pose_accuracy.read_records(path) == {
        "choosing": {"a": {"all": {"images": 1}}},
        "reporting": {"b": {"all": {"images": 2}, "without features": {"images": 2}}},
    }
    for text in ("{", "{}", '{"halves": 1}', '{"halves": {"third": {"a": {}}}}'):
        path.write_text(text)
        with pytest.raises(UserError, match="not what this benchmark prints"):
            pose_accuracy.read_records(path)


@pytest.mark.slow
def test_failing_commands_are_told_in_one_line(tmp_path: Path):
    (tmp_path / "realcars").mkdir()
    words = [
        "--collections",
        "realcars",
        "--data",
        str(tmp_path),
        "--folder",
        str(tmp_path / "work"),
    ]
    with pytest.raises(
        UserError, match=r"data.prepare .*realcars/images/ does not exist"
    ) as refusal:
        pose_accuracy.main(words)
    assert "\n" not in str(refusal.value)
