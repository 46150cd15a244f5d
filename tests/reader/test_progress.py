"""Something moves on a terminal, also on one that states no size."""

import os
import sys
import time

import pytest

from sf_jax.reader import progress


def test_bars_move_while_one_step_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    ours, theirs = os.openpty()  # of 0 by 0, as a program makes it
    monkeypatch.setattr(sys, "stderr", os.fdopen(theirs, "w"))
    with progress.waiting("loading the model"):
        time.sleep(0.1)
    assert os.read(ours, 65536).count(b"\rloading the model 00:00") >= 2
    assert list(progress.tracked([1, 2], "picture", 2)) == [1, 2]
    drawn = os.read(ours, 65536)
    assert b"0/2" in drawn and b"2/2" in drawn


def test_in_a_pipe_only_counted_work_is_drawn(capsys: pytest.CaptureFixture) -> None:
    with progress.waiting("loading the model"):
        pass
    assert capsys.readouterr().err == ""
    assert list(progress.tracked([1, 2], "picture", hidden=True)) == [1, 2]
    assert capsys.readouterr().err == ""
