"""A model that tests of training share."""

from pathlib import Path

import pytest

from sf_jax.model.config import Config
from sf_jax.reader.schema import channel_schema
from tests.small import write_random_model


@pytest.fixture(scope="session")
def random_model(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model of random weights whose values are one token each."""
    return write_random_model(tmp_path_factory.mktemp("model"), tiny_config, channel_schema())
