"""An answer is one compiled call that nothing leaves before it is whole."""

import glob
import gzip
import json
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

import sf_jax
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode.generate import DraftPlan, generate
from sf_jax.reader.estimator import Model
from tests import for_tpu

HOST = ("callback", "infeed", "outfeed", "send", "recv", "host_local")


@pytest.fixture(scope="module")
def model() -> Model:
    return sf_jax.load()


@pytest.fixture(scope="module")
def arguments(model: Model) -> tuple:
    """What `generate` is called with."""
    found: list[tuple] = []

    def record(*given: Any) -> None:
        found.append(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sf_jax.decode.decoder.generate", record)
        model.generate(*model.inputs([np.full((96, 96, 3), 90, np.uint8)]))
    return found[0]


def primitives(jaxpr: Any) -> set[str]:
    """The names of all primitives, those in inner programs included."""
    names: set[str] = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                names |= primitives(inner)
    return names


def test_no_primitive_calls_the_host(arguments: tuple) -> None:
    names = primitives(generate.trace(*arguments).jaxpr)
    assert {"while", "argmax", "dot_general"} <= names  # inner programs were included
    assert not [name for name in names if any(word in name for word in HOST)]
    called = jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y + _from_host(y), x))(
        1.0
    )
    assert "pure_callback" in primitives(called.jaxpr)  # it would be found


def _from_host(value: Any) -> Any:
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), np.float32), value)


def test_the_program_of_a_tpu_talks_to_no_host(arguments: tuple) -> None:
    text = export.export(generate, platforms=["tpu"])(*arguments).mlir_module()
    assert "stablehlo.while" in text
    for word in ("stablehlo.send", "stablehlo.recv", "stablehlo.infeed", "stablehlo.outfeed"):
        assert word not in text
    assert "callback" not in text


def test_what_a_tpu_runs_talks_to_no_host() -> None:
    """As compiled, not only as lowered."""
    found = for_tpu.compiled("tests.decode.compile_for_tpu")
    assert {"while", "fusion"} <= set(found["operations"])
    assert "tpu_custom_call" in found["custom"]  # the attention kernels
    names = found["operations"] + found["custom"]
    assert not [name for name in names if any(word in name.lower() for word in HOST)]


def test_a_batch_is_one_dispatch(model: Model, tmp_path) -> None:
    pictures = [np.full((96, 96, 3), level, np.uint8) for level in (40, 200)]
    model.predict_batch(pictures, whole=True)
    with jax.profiler.trace(str(tmp_path)):
        model.predict_batch(pictures, whole=True)
    (file,) = glob.glob(f"{tmp_path}/**/*.trace.json.gz", recursive=True)
    with gzip.open(file) as content:
        events = json.load(content)["traceEvents"]
    names = [event["name"] for event in events if "dur" in event]
    called = {name for name in names if name.startswith("PjitFunction(")}
    assert called == {"PjitFunction(generate)"}
    assert sum("ExecuteHelper" in name for name in names) == 1


def random_sizes() -> list[tuple[int, int]]:
    generator = np.random.default_rng(0)
    return [tuple(generator.integers(40, 1400, 2)) for _ in range(300)]


def test_pictures_of_any_size_compile_six_programs_at_most(model: Model) -> None:
    before = generate._cache_size()
    for height, width in random_sizes():
        model.predict(np.zeros((height, width, 3), np.uint8), whole=True, rationale=False)
    assert 1 <= generate._cache_size() - before <= 6


def test_large_pictures_have_six_shapes_at_most(model: Model) -> None:
    processor = ImageProcessor(65_536, 1024 * 32**2)
    asked = Model(model.config, model.weights, model.tokenizer, processor, instructed=False)
    shapes = set()
    for height, width in random_sizes():
        rows, _ = asked.inputs([np.zeros((height, width, 3), np.uint8)])
        shapes.add((rows.input_ids.shape, rows.inputs["vision"].pixels.shape))
    assert 5 <= len(shapes) <= 6  # sizes do differ


def test_another_shape_or_plan_alone_compiles(model: Model) -> None:
    before = generate._cache_size()
    for seed, level in enumerate((10, 90, 200)):
        picture = np.full((96 + level, 96, 3), level, np.uint8)
        model.predict(picture, whole=True, temperature=0.1 * seed, seed=seed)
    assert generate._cache_size() - before <= 2
    model.decoder.plan = DraftPlan(rationale_width=2)
    model.predict(picture, whole=True)
    assert generate._cache_size() > before
