"""Folders of face records as a TensorFlow Datasets builder that needs no TensorFlow."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines import records
from data_pipelines.loader import RecordSource
from data_pipelines.records import RecordError
from data_pipelines.shards import split_of
from sf_jax.face.landmarks import COUNT
from sf_jax.media import locks
from sf_jax.media.errors import DataError

SPLITS = ("train", "evaluation")
OWN = ("image", "coefficients", "known", "rationale", "landmarks", "source", "style", "identity")
MAPS = ("parts", "dense")  # targets of one model's warm-up, left out


class FaceRecords(tfds.core.GeneratorBasedBuilder):
    """Face records of any origin: rendered, recorded, imported or described.

    Images stay as they are stored. Fields that only some records have, such as `seed` or where a
    rationale is from, are in `more` as JSON. Records of files whose names begin with neither split
    are in train.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # see `faces_builder.SyntheticFaces`

    def __init__(self, *, folders: Sequence[Path], name: str = "faces", **options: str | Path):
        self.paths = paths_by_split(folders)
        super().__init__(config=tfds.core.BuilderConfig(name=name), **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "coefficients": tfds.features.Tensor(shape=(61,), dtype=np.float32),
                "known": tfds.features.Tensor(shape=(61,), dtype=np.bool_),
                "rationale": tfds.features.Text(),
                "landmarks": tfds.features.Tensor(shape=(COUNT, 2), dtype=np.float32),
                "source": tfds.features.Text(),
                "style": tfds.features.Text(),
                "identity": tfds.features.Scalar(dtype=np.int64),
                "more": tfds.features.Text(),
            }
        )
        made_of = tfds.core.MetadataDict(files=_contents(self.paths))
        return tfds.core.DatasetInfo(builder=self, features=features, metadata=made_of)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(paths) for split, paths in self.paths.items()}

    def _generate_examples(self, paths: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in paths:
            for number, stored in enumerate(records.read_as(path, _with_image)):
                with records.located(path, number):
                    yield f"{path}/{number}", _example(stored)


def paths_by_split(folders: Sequence[Path]) -> dict[str, list[str]]:
    """The record files of folders by split; splits without files are left out.

    Raises:
      RecordError: a folder has no record files, or a damaged one.
    """
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for folder in folders:
        for path in records.files(folder):
            split = split_of(path)
            found[split if split in SPLITS else "train"].append(path)
    return {split: paths for split, paths in found.items() if paths}


def _contents(paths_by_split: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By split, a hash of each record file's content, in order."""
    return {
        split: [file.hash for file in RecordSource([*paths]).fingerprint().files.values()]
        for split, paths in paths_by_split.items()
    }


def _with_image(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """The image as it is stored, and the record with all fields checked."""
    image = records.unpacked(data, records.FIELDS)["image"]
    return image, records.decode(data)


def _example(stored: tuple[bytes, Mapping[str, Any]]) -> dict[str, Any]:
    image, record = stored
    marks = record["landmarks"]
    if marks.shape != (COUNT, 2):
        raise RecordError(f"field 'landmarks' is not {COUNT} rows of x and y", field="landmarks")
    more = {name: record[name] for name in sorted(record.keys() - {*OWN, *MAPS})}
    own = {name: record[name] for name in OWN if name in record}
    return own | {
        "image": io.BytesIO(image),
        "coefficients": record["coefficients"].astype(np.float32),
        "landmarks": marks.astype(np.float32),
        "identity": int(record.get("identity", -1)),
        "more": json.dumps(more, default=_plain, sort_keys=True),
    }


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


def build(directory: Path, folders: Sequence[Path], name: str = "faces") -> FaceRecords:
    """Writes the dataset as ArrayRecord; read it with `.as_data_source()`.

    Args:
      name: of the configuration, so that several datasets share a directory.

    Raises:
      BusyError: another process builds there.
      RecordError: a folder has no record files, or a record is damaged.
      DataError: the directory holds a dataset of that name, made of other records.
    """
    builder = FaceRecords(data_dir=directory, folders=folders, name=name)
    wanted = _contents(builder.paths)
    with locks.held(directory):
        builder.download_and_prepare(file_format="array_record")
    if builder.info.metadata.get("files") != wanted:  # TFDS keeps what is there
        problem = f"holds a dataset {name!r} made of other records; give another --name or --out"
        raise DataError(problem, path=directory)
    return builder
