"""The TFDS dataset holds what `face_record` gives."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from data_pipelines import faces_builder, synthetic

COUNTS = {"train": 6, "evaluation": 2}


def test_a_built_dataset_reads_back_as_rendered(tmp_path: Path) -> None:
    builder = faces_builder.build(tmp_path, **COUNTS)
    for split, count in COUNTS.items():
        source = builder.as_data_source(split=split)
        assert len(source) == count
        expected = [synthetic.face_record(i, 0, split) for i in range(count)]
        met = set()
        for found in source:  # in TFDS's own order
            distances = [np.abs(found["coefficients"] - e["coefficients"]).max() for e in expected]
            i = int(np.argmin(distances))
            met.add(i)
            np.testing.assert_array_equal(found["coefficients"], expected[i]["coefficients"])
            np.testing.assert_array_equal(found["image"], expected[i]["image"])
            assert found["rationale"].decode() == expected[i]["rationale"]
            assert found["identity"] == expected[i]["identity"]
            np.testing.assert_array_equal(found["known"], expected[i]["known"])
            np.testing.assert_array_equal(found["landmarks"], expected[i]["landmarks"])
            assert (found["source"], found["style"]) == (b"builtin", b"built-in head")
        assert met == set(range(count))

    with pytest.raises(ValueError, match=r"holds \{'train': 6, 'evaluation': 2\} faces"):
        faces_builder.build(tmp_path, train=7, evaluation=2)
