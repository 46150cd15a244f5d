"""Records whose rationales a teacher wrote: their texts, and copies that the describer words."""

from itertools import islice
from pathlib import Path

from data_pipelines import records
from sf_jax.face.describe import describe


def rationales(folder: Path, most: int) -> list[str]:
    """Those of the first records of a folder that are not empty; images are not decoded.

    Raises:
      RecordError: a record is damaged; names file and record.
    """
    stored = (
        record
        for path in records.files(folder)
        for record in records.read_as(path, lambda data: records.unpacked(data, ["rationale"]))
    )
    return [one["rationale"] for one in islice(stored, most) if one["rationale"]]


def describe_anew(teacher: Path, folder: Path) -> None:
    """Copies of records whose rationales are the describer's; files that are there are kept."""
    for path in map(Path, records.files(teacher)):
        if not (folder / path.name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            records.write_encoded(folder / path.name, records.read_as(path, _redescribed))


def _redescribed(data: bytes) -> bytes:
    """A stored record with the describer's rationale where it has one."""
    record = records.unpacked(data, records.FIELDS)
    if record["rationale"]:
        seed = int(record.get("seed", 0))
        record["rationale"] = describe(record["coefficients"], seed).text
    return records.packed(record)
