"""The rendered faces as a TensorFlow Datasets builder that needs no TensorFlow."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines import synthetic
from sf_jax.face.landmarks import COUNT
from sf_jax.media import locks

KEPT = ("coefficients", "known", "rationale", "landmarks", "source", "style", "identity")


class SyntheticFaces(tfds.core.GeneratorBasedBuilder):
    """Rendered faces with exact coefficients and their description.

    Options `train` and `evaluation` are the numbers of faces of each split.
    """

    VERSION = tfds.core.Version("1.1.0")
    # Where TFDS looks for checksums of downloads, of which there are none; its own search needs a
    # package (importlib_resources) that it does not install.
    code_path = None

    def __init__(
        self, *, train: int = 10_000, evaluation: int = 1000, seed: int = 0, **options: Any
    ):
        self.counts, self.seed = {"train": train, "evaluation": evaluation}, seed
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "coefficients": tfds.features.Tensor(shape=(61,), dtype=np.float32),
                "rationale": tfds.features.Text(),
                "known": tfds.features.Tensor(shape=(61,), dtype=np.bool_),
                "landmarks": tfds.features.Tensor(shape=(COUNT, 2), dtype=np.float32),
                "source": tfds.features.Text(),
                "style": tfds.features.Text(),
                "identity": tfds.features.Scalar(dtype=np.int64),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(self.counts[split]):
            record = synthetic.face_record(i, self.seed, split)
            encoded = io.BytesIO()
            Image.fromarray(record["image"]).save(encoded, "PNG")
            encoded.seek(0)
            yield i, {"image": encoded, **{name: record[name] for name in KEPT}}


def build(directory: Path, train: int, evaluation: int, seed: int = 0) -> SyntheticFaces:
    """Writes the dataset as ArrayRecord; read it with `.as_data_source()`.

    Raises:
      BusyError: another process builds there.
      ValueError: the directory holds the dataset with other numbers of faces.
    """
    builder = SyntheticFaces(data_dir=directory, train=train, evaluation=evaluation, seed=seed)
    with locks.held(directory):
        builder.download_and_prepare(file_format="array_record")
    found = {split: builder.info.splits[split].num_examples for split in builder.counts}
    if found != builder.counts:  # TFDS keeps what is there
        raise ValueError(f"{directory}: holds {found} faces, expected {builder.counts}; remove it")
    return builder
