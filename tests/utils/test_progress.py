import logging

import pytest
import torch

from utils.progress import progress


@pytest.mark.parametrize("value", [None, "1"])
def test_every_item_comes_through(monkeypatch, capsys, value):
    if value:
        monkeypatch.setenv("TMG_PROGRESS", value)
    assert list(progress(range(7), description="images")) == list(range(7))
    assert list(progress((i for i in range(3)), initial=2)) == [0, 1, 2]
    # Tensors and arrays have no truth value
    rows = torch.eye(3)
    assert torch.equal(torch.stack(list(progress(rows))), rows)
    assert capsys.readouterr().err == ""


def test_the_log_gets_a_line_for_every_tenth(monkeypatch, caplog):
    monkeypatch.setenv("TMG_PROGRESS", "1")
    with caplog.at_level(logging.INFO):
        list(progress(range(95), description="images"))
    assert len(caplog.messages) == 10
    assert caplog.messages[0].startswith("images 10/95 ")
    assert caplog.messages[-1].startswith("images 95/95 ")
    assert caplog.messages[-1].endswith(" 0 s left")


def test_resumed_work_is_counted_from_where_it_was(monkeypatch, caplog):
    monkeypatch.setenv("TMG_PROGRESS", "1")
    with caplog.at_level(logging.INFO), progress(total=10, initial=8) as bar:
        bar.update(2)
        bar.set_postfix(loss=1)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("progress 10/10 ")
