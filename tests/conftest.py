"""Shared shapes: a tiny Qwen3-VL with odd sizes, and textured, non-square pictures."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from sf_jax.model import declared
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.weights import Weights
from tests import compiling

compiling.set_flags()


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(compiling.share_programs())


MAPPINGS = 30_000  # Linux allows a process 65,530


@pytest.fixture(autouse=True)
def few_mappings() -> Iterator[None]:
    """Clears compiled programs before they have mapped all the memory a process may map.

    After the last mapping the compiler would crash.
    """
    yield
    listed = Path("/proc/self/maps")
    if listed.exists() and listed.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def heard_signals() -> Iterator[None]:
    """Tests that send signals are heard also where the run is in the background or under nohup.

    Such a process ignores Ctrl-C or hangups, and so do the processes that it starts.
    """
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in heard}
    ignored = [number for number, how in before.items() if how is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, heard[number])
    yield
    for number in ignored:
        signal.signal(number, before[number])


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    vision = VisionConfig(
        depth=4,
        hidden_size=64,
        intermediate_size=96,
        num_heads=4,
        out_hidden_size=48,
        num_position_embeddings=49,
        deepstack_visual_indexes=(1, 2),
    )
    text = TextConfig(
        vocab_size=200,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        mrope_section=(4, 2, 2),
    )
    return Config(vision, text, 7, 8, 9)


@pytest.fixture(scope="session")
def tiny_weights(tiny_config: Config) -> Weights:
    """Large weights with perturbed norms and biases, so that a wrong formula shows."""
    generator = np.random.default_rng(1)

    def perturb(x: jax.Array) -> jax.Array:
        constant = float(x.std()) < 1e-6
        noise = generator.normal(0.0, 0.3 if constant else 0.05, x.shape).astype(np.float32)
        return (x if constant else x * 1.5) + noise

    return jax.tree.map(perturb, declared.initialise(tiny_config.declare(), 0))


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(2)
    return [
        generator.integers(0, 256, (64, 96, 3)).astype(np.uint8),
        generator.integers(0, 256, (96, 64, 3)).astype(np.uint8),
        generator.integers(0, 256, (32, 64, 3)).astype(np.uint8),
    ]
