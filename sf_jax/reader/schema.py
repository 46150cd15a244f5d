"""Schemas whose slots are channels of the face: all 61 in canonical order, or some of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from sf_jax.decode import schema_file
from sf_jax.decode.schema import Schema
from sf_jax.decode.schema_file import SchemaFileError
from sf_jax.face import channels


def channel_schema(
    names: Sequence[str] = channels.NAMES, *, decimals: int = 1, paragraphs: bool = False
) -> Schema:
    """The schema of some channels, each in its own range; a directory without one has all 61.

    Raises:
      UnknownChannel: a name is none of a channel.
    """
    rows = [channels.lookup(name) for name in names]
    low, high = tuple(row.low for row in rows), tuple(row.high for row in rows)
    return Schema(tuple(names), low, high, decimals=decimals, paragraphs=paragraphs)


def read_channel_schema(folder: Path, paragraphs: bool) -> Schema:
    """The schema of a model's directory, checked to be one of channels.

    Args:
      paragraphs: of the schema of a directory that carries none.

    Raises:
      SchemaFileError: `schema.json` cannot be read, or holds what is no channel; names the field.
    """
    found = schema_file.read_schema(folder)
    if found is None:
        return channel_schema(paragraphs=paragraphs)
    try:
        channel_indices(found)
    except SchemaFileError as error:
        raise error.at(path=folder / schema_file.FILE) from error
    return found


def require_all_channels(schema: Schema, folder: Path, purpose: str) -> None:
    """For what has labels of all 61 channels in canonical order, as training and scoring have.

    Raises:
      SchemaFileError: the schema has fewer, or another order; names the file.
    """
    if schema.names != channels.NAMES:
        problem = f"{len(schema.names)} channels, or another order than the canonical one of "
        problem += f"{len(channels.NAMES)}; {purpose} needs these"
        raise SchemaFileError(problem, path=folder / schema_file.FILE, field="slots")


def channel_indices(schema: Schema) -> Int[np.ndarray, " C"]:
    """The canonical position of the channel in each slot.

    Raises:
      SchemaFileError: a slot is no channel, one that another slot has already, or of a wider range;
        or the block repeats.
    """
    if schema.repeat is not None:
        raise SchemaFileError("one image has one block of channels", field="repeat")
    indices: list[int] = []
    for slot, name in enumerate(schema.names):
        where = f"slots[{slot}]"
        try:
            channel = channels.lookup(name)
        except channels.UnknownChannel as error:
            raise SchemaFileError(str(error), field=f"{where}.name") from error
        if channel.index in indices:
            raise SchemaFileError(f"{channel.name} is in two slots", field=f"{where}.name")
        for key, value in (("low", schema.low[slot]), ("high", schema.high[slot])):
            if not channel.low <= value <= channel.high:
                problem = f"{value:g} is out of {channel.low:g} to {channel.high:g}, the range of "
                raise SchemaFileError(problem + channel.name, field=f"{where}.{key}")
        indices.append(channel.index)
    return np.array(indices, np.int32)
