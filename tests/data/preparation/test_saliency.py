"""Masks by a saliency network: tiny networks that are made here, which find what is bright."""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.detections import load_detections
from data.preparation.saliency import saliency_detector
from data.run_lengths import decode_mask
from tests.data.test_prepare import run
from utils.cli import UserError

H, W = 150, 200
YY, XX = np.mgrid[:H, :W]
OBJECT = ((XX - 100) / 70) ** 2 + ((YY - 75) / 50) ** 2 < 1
ARGUMENTS = ["--dataset", "x", "--category", "bird", "--mask_model", "net.onnx"]
SHARP = 60.0  # slope of the logits


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photograph(name: str, bright: np.ndarray, value: int = 220, other: int = 30) -> None:
    path = Path("datasets/x/images") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.where(bright, value, other).astype(np.uint8)
    Image.fromarray(np.stack([pixels] * 3, -1)).save(path)


def network(
    size: int | str = 64,
    bias: float = -0.5,
    logits: bool = False,
    outputs: int = 1,
    notes: dict[str, str] | None = None,
    half: bool = False,
    attention: bool = False,
) -> None:
    """Writes a network: mean over the channels plus a bias, times `SHARP`, and a sigmoid."""
    pytest.importorskip("onnxruntime", reason="requirements-masks.txt is not installed")
    onnx: Any = pytest.importorskip("onnx", reason="requirements-masks.txt is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    weights = onnx.numpy_helper.from_array(np.full((1, 3, 1, 1), SHARP / 3, dtype), "w")
    offset = onnx.numpy_helper.from_array(np.array([SHARP * bias], dtype), "b")
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["logits"])]
    nodes += [helper.make_node("Sigmoid", ["logits"], ["map"])]
    nodes += [helper.make_node("Softmax", ["logits"], ["attention"])] if attention else []
    names = [["map", "logits"][logits], ["logits", "map"][logits]][:outputs]
    shape = [1, 1, size, size]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kind, [1, 3, size, size])],
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
        [weights, offset],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, notes or {})
    onnx.save(model, "net.onnx")


IMAGENET_GRAY = 0.485 / 0.229 + 0.456 / 0.224 + 0.406 / 0.225  # three times the mean of black


def bias_for(level: float, mean: float | None = None, std: float = 1.0) -> float:
    """Returns the bias with which gray of a level in [0, 1] becomes 1/2, after normalization."""
    if mean is not None:
        return -(level - mean) / std
    return -(level * (1 / 0.229 + 1 / 0.224 + 1 / 0.225) - IMAGENET_GRAY) / 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: network(bias=bias_for(0.5)),
        lambda: network(bias=bias_for(0.5), logits=True),
        lambda: network(bias=bias_for(0.5), half=True),
        lambda: network(bias=bias_for(0.5, 0.1, 0.2), notes={"mean": "0.1", "std": "[0.2, .2, 0.2]"}),
        lambda: network(size=1024, bias=bias_for(0.5, 0.5), outputs=2),  # as IS-Net
        lambda: network(size=1024, bias=bias_for(0.5, 0.5)),  # as RMBG, of the same kind
        lambda: network(size=1024, bias=bias_for(0.5), logits=True, attention=True),  # as BiRefNet
        lambda: network(size=320, bias=bias_for(0.5), outputs=2),  # as U2-Net
        lambda: network(size="side", bias=bias_for(0.5), notes={"size": "96"}),
    ],
)  # fmt: skip
def test_the_bright_object_is_found(make: Callable[[], None]) -> None:
    make()
    photograph("a.png", OBJECT, 142, 118)  # so near to 1/2 that another normalization errs
    prepare.main(ARGUMENTS)
    mask = decode_mask(load_detections("x")[0].mask)
    assert (mask & OBJECT).sum() / (mask | OBJECT).sum() > 0.96


def test_size_and_normalization_may_be_options(caplog: pytest.LogCaptureFixture) -> None:
    network(size="side", bias=bias_for(0.5, 0.2, 0.4))
    photograph("a.png", OBJECT)
    with pytest.raises(UserError, match=r"does not fix the size of its input\. Add --mask_size"):
        saliency_detector(Path("net.onnx"))
    options = ["--mask_size", "80", "--mask_mean", ".2", ".2", ".2", "--mask_std", ".4", ".4", ".4"]
    with caplog.at_level(logging.INFO):
        prepare.main([*ARGUMENTS, *options])
    assert "input of 80 x 80 pixels, mean 0.2, 0.2, 0.2, std 0.4, 0.4, 0.4" in caplog.text
    mask = decode_mask(load_detections("x")[0].mask)
    assert (mask & OBJECT).sum() / (mask | OBJECT).sum() > 0.96


def test_objects_pass_the_checks_of_other_detectors(capsys) -> None:
    network(bias=bias_for(0.5))
    speck = (XX > 185) & (YY > 140)
    photograph("a.png", OBJECT | speck)
    photograph("b.png", OBJECT & False)
    photograph("c.png", XX < 90)
    photograph("d.png", (XX > 50) & (XX < 90) & (YY > 50) & (YY < 90))
    photograph("e.png", OBJECT, value=129)
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    (item,) = load_detections("x").items
    assert item.bbox[2] < 180  # without the speck
    out = capsys.readouterr().out
    for name, reason in {
        "b": "shows nothing that stands out: at most 0.00 of 1",
        "c": "shows an object that is cut off at the border",
        "d": "shows an object that is small",
        "e": "shows an object that is uncertain: score 0.8",
    }.items():
        assert f"left out: datasets/x/images/{name}.png {reason}" in out


def test_a_network_continues_where_it_was_stopped(monkeypatch, capsys) -> None:
    network(bias=bias_for(0.5))
    for name in "abc":
        photograph(f"{name}.png", OBJECT)
    from data.preparation import masking

    written = []

    def stop(path: Path, *arguments: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *arguments)

    write = masking.write_made_mask
    monkeypatch.setattr(masking, "write_made_mask", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare.main(ARGUMENTS)
    monkeypatch.setattr(masking, "write_made_mask", write)
    prepare.main(ARGUMENTS)
    assert "1 new masks with an object, 2 finished before" in capsys.readouterr().out


def test_files_that_are_no_such_network_are_named(capsys) -> None:
    network(notes={"mean": "gray"})
    photograph("a.png", OBJECT)
    assert "its notes say 'gray', expected 3 numbers" in run(ARGUMENTS, capsys)
    network(size=64)
    line = run([*ARGUMENTS, "--mask_size", "32"], capsys)
    assert "--mask_size 32: net.onnx has an input of 64 x 64 pixels. Leave it out" in line
    Path("net.onnx").write_bytes(b"damaged")
    assert "net.onnx is no network that onnxruntime reads" in run(ARGUMENTS, capsys)
    Path("net.onnx").unlink()
    assert "net.onnx does not exist. Name a saliency network" in run(ARGUMENTS, capsys)


def test_without_onnxruntime_the_command_is_named(monkeypatch, capsys) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    photograph("a.png", OBJECT)
    line = run(ARGUMENTS, capsys)
    assert "onnxruntime, which is not installed. Install it with: pip install -r" in line
