"""Finding faces: the squares that `find` gives."""

import numpy as np
import pytest

from sf_jax.reader import finder


def test_a_found_square_is_centred_below_the_cascades_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "face_box", lambda image: (10, 20, 100, 100))
    (found,) = finder.find(np.zeros((200, 200, 3), np.uint8))
    assert (found.box.x, found.box.side) == (70.0, 100.0)
    assert found.box.y == pytest.approx(60.0 + 21.0)


def test_an_image_without_a_face_has_none() -> None:
    assert finder.find(np.full((60, 80, 3), 128, np.uint8)) == []
