"""What is made of declarations: initial values, shapes, names."""

import hashlib

import jax
import numpy as np
import pytest

from sf_jax.model.architecture import Architecture
from sf_jax.model.declared import Declarer, Weight, abstract, count, initialise, leaves

# Of `conftest.tiny_config`, as checkpoints of trained models have them.
PATHS = "71069e076056c040e32a80f23a29c96a73521886336d16e4152818d0c6c295a9"


def test_paths_of_stacked_weights_are_those_of_checkpoints(tiny_config: Architecture) -> None:
    """Orbax names arrays by these paths; a layout is no part of them."""
    paths = [jax.tree_util.keystr(path) for path, _ in leaves_with_path(tiny_config)]
    assert ".text.layers.q.weight" in paths and ".vision.deepstack.fc1.bias" in paths
    assert hashlib.sha256("\n".join(paths).encode()).hexdigest() == PATHS


def leaves_with_path(config: Architecture) -> list:
    return jax.tree_util.tree_leaves_with_path(abstract(config.declare()))


def test_a_seed_gives_the_same_values_as_ever(tiny_config: Architecture) -> None:
    weights = initialise(tiny_config.declare(), 0)
    found = [
        weights.text.layers.q.weight[1, 2, 3],
        weights.vision.pos_embed[3, 5],
        weights.text.layers.down.weight[3, 95, 47],
        weights.vision.deepstack.fc2.weight[1, 0, 0],
    ]
    np.testing.assert_allclose(found, [0.05465535, 0.01902799, 0.02248657, -0.01882388], atol=1e-8)


def test_names_of_a_stack_and_of_its_layers() -> None:
    weight = Declarer("tower.blocks.{}", 3).linear("fc", ("audio", "mlp"), (8, 16)).weight
    assert (
        weight.stacked and weight.shape == (3, 8, 16) and weight.axes == ("layer", "audio", "mlp")
    )
    assert weight.names == [f"tower.blocks.{i}.fc.weight" for i in range(3)]
    alone = Declarer("tower").norm("norm", 8, "audio", bias=True)
    assert not alone.scale.stacked and alone.bias.names == ["tower.norm.bias"]


def test_a_convolution_is_a_linear_over_windows() -> None:
    conv = Declarer("tower").convolution("conv", ("patch", "audio"), (4, 3), 8)
    assert conv.weight.shape == (12, 8) and conv.weight.source_shape == (8, 4, 3)
    assert count(conv) == 12 * 8 + 8 and [w.init for w in leaves(conv)] == ["normal", "zeros"]


def test_axes_are_as_many_as_sizes() -> None:
    with pytest.raises(ValueError, match=r"'x': shape \(2, 3\) has other axes"):
        Weight((2, 3), ("embed",), "x")
