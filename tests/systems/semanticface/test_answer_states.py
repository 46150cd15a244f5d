"""What draft heads are learnt from."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.synthetic import face_record
from data_pipelines.views import Views
from sf_jax.systems.semanticface import answer_states
from sf_jax.train.draft_heads import DraftHeadsConfig


def test_draft_heads_are_learnt_from_framed_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is as large as the views of a face that the model reads."""
    found: list[np.ndarray] = []

    class SeenError(Exception):
        pass

    def seen(model: object, images: list[np.ndarray]) -> None:
        found.extend(images)
        raise SeenError

    faces = [face_record(i, 0, "train") for i in range(3)]
    monkeypatch.setattr(answer_states.loading, "load", lambda folder: None)
    monkeypatch.setattr(answer_states.records, "first", lambda folder, count: faces[:count])
    monkeypatch.setattr(answer_states, "rationale_states", seen)
    views = Views(size=64, cells=16, mirrored=1.0, framed_share=0.0, colours=0.0)
    with pytest.raises(SeenError):
        answer_states.learn_draft_heads(
            Path("data"), 2, views, DraftHeadsConfig(heads=2, width=8, steps=1), Path("export")
        )
    assert [image.shape for image in found] == [(64, 64, 3)] * 2
