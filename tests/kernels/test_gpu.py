"""The GPU kernels without a GPU: values in interpret mode, and lowering for CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.lib.mlir import ir
from jax._src.pallas.triton import lowering

from sf_jax.kernels import gpu
from sf_jax.kernels.visible import Visible, per_row
from tests.kernels import cases


@pytest.fixture
def interpreted(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "INTERPRET", True)
    # Enough that small caches too are divided into parts of several blocks.
    monkeypatch.setattr(gpu, "PROGRAMS", 12)


def attend(q, k, v, *, return_lse=False, q_offset=None, kv_length=None, **how):
    """`attention` by the GPU kernels, with their own gradients."""
    offset, length = per_row(q_offset, q.shape[0]), per_row(kv_length, q.shape[0])
    visible = Visible(q_offset=offset, kv_length=length, **how)
    scale = q.shape[3] ** -0.5
    assert gpu.supports(q, k, v, visible)

    @jax.custom_vjp
    def both(q, k, v):
        return gpu.forward(q, k, v, visible, scale)

    def forward(q, k, v):
        out, lse = both(q, k, v)
        return (out, lse), (q, k, v, visible, out, lse)

    both.defvjp(forward, lambda saved, given: gpu.backward(*saved, *given, scale))
    out, lse = both(q, k, v)
    return (out, lse) if return_lse else out


def segments(batch: int, length: int, ends: list[int]) -> jnp.ndarray:
    """Segments 1, 2, … that end at these positions, then padding."""
    row = np.zeros(length, np.int32)
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
        row[start:end] = number
    return jnp.asarray(np.broadcast_to(row, (batch, length)))


# Lengths are no multiples of a block, and cover tiles of 16 to 128 rows.
CASES = {
    "causal, heads in groups": ({"length": 150, "heads": 4, "kv_heads": 2}, {}),
    "bidirectional, width 72": (
        {"length": 70, "size": 170, "heads": 3, "width": 72}, {"causal": False},
    ),
    "offsets and lengths a row, width 128": (
        {"batch": 3, "length": 40, "size": 190, "heads": 6, "kv_heads": 2, "width": 128},
        {"q_offset": np.array([100, 0, -7]), "kv_length": np.array([140, 190, 33])},
    ),
    "lengths without causality": (
        {"batch": 3, "length": 33, "size": 130, "heads": 2},
        {"causal": False, "kv_length": np.array([0, 1, 128])},
    ),
    "segments of one length": (
        {"length": 140, "heads": 4, "kv_heads": 1},
        {"q_segments": segments(1, 140, [50, 120]), "kv_segments": segments(1, 140, [50, 120])},
    ),
    "segments of two lengths": (
        {"batch": 2, "length": 90, "size": 150, "heads": 2, "width": 72},
        {
            "causal": False, "q_segments": segments(2, 90, [20, 80]),
            "kv_segments": segments(2, 150, [70, 129]),
        },
    ),
    "one token": (
        {"batch": 2, "length": 1, "size": 300, "heads": 8, "kv_heads": 2, "width": 128},
        {"q_offset": np.array([299, 70]), "kv_length": np.array([300, 71])},
    ),
    "few tokens, width 72": (
        {"batch": 3, "length": 5, "size": 200, "heads": 6, "kv_heads": 2, "width": 72},
        {"q_offset": np.array([150, 30, 0]), "kv_length": np.array([155, 35, 0])},
    ),
    "few tokens with segments": (
        {"length": 16, "size": 140, "heads": 4, "kv_heads": 1},
        {
            "causal": False, "q_segments": segments(1, 16, [3, 11]),
            "kv_segments": segments(1, 140, [60, 130]),
        },
    ),
}  # fmt: skip


def check(name: str, dtype: str, gradients: bool = True) -> None:
    shape, how = CASES[name]
    given = cases.inputs(dtype=dtype, **shape)
    right = cases.wanted(given, gradients, **how)
    cases.assert_close(cases.run(given, dtype, attend, gradients, **how), right, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, dtype, interpreted) -> None:
    check(name, dtype)


GROUPED, OFFSETS, ONE, FEW = (list(CASES)[number] for number in (0, 2, 6, 7))
SEGMENTS, FEW_SEGMENTS = "segments of one length", "few tokens with segments"
fold, rows = gpu._fold, gpu._rows
swapped = np.array([0, 3, 1, 4, 2, 5])  # six heads as if head n belonged to key head n modulo 2


def no_scale(a, b, scale):
    return gpu._product(a, b, (1, 1)) * gpu.LOG2_E


MUTANTS = {
    "scale dropped": ("_scores", no_scale, GROUPED),
    "scale dropped, decode": ("_scores", no_scale, FEW),
    "not itself": ("_before", lambda key, position: key < position, GROUPED),
    "not itself, decode": ("_before", lambda key, position: key < position, FEW),
    "one ahead": ("_before", lambda key, position: key <= position + 1, OFFSETS),
    "offset dropped": ("_rows", lambda plan, limits, query: (query, None), OFFSETS),
    "other key head": ("_kv_head", lambda head, groups: head % 2, GROUPED),
    "other query heads": ("_query_head", lambda kv_head, groups, n: kv_head + 2 * n, GROUPED),
    "other heads, decode": ("_fold", lambda q, kv_heads: fold(q[:, :, swapped], kv_heads), FEW),
    "no rescaling": ("_rescale", lambda old, new: jnp.ones_like(old), GROUPED),
    "no rescaling, decode": ("_rescale", lambda old, new: jnp.ones_like(old), ONE),
    "parts all alike": (
        "_combine", lambda out, lse: (out.mean(0), jax.nn.logsumexp(lse, 0)), ONE
    ),
    "padding seen": ("_same_segment", lambda q, kv: q == kv, SEGMENTS),
    "all segments seen": ("_same_segment", lambda q, kv: kv != 0, SEGMENTS),
    "all segments seen, decode": ("_same_segment", lambda q, kv: kv != 0, FEW_SEGMENTS),
    "weights independent": ("_d_scores", lambda weights, d, delta: weights * d, GROUPED),
    "last block forgotten": (
        "_over_keys", lambda body, carry, first, whole, last: jax.lax.fori_loop(
            first, last - 1, lambda i, x: body(i, x, masked=True), carry), GROUPED,
    ),
    "no mask at all": (
        "_over_keys", lambda body, carry, first, whole, last: jax.lax.fori_loop(
            first, last, lambda i, x: body(i, x, masked=False), carry), OFFSETS,
    ),
}  # fmt: skip


BACKWARD = ("_query_head", "_d_scores")  # used in the backward pass alone


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_fail(name, monkeypatch, interpreted) -> None:
    attribute, mutant, case = MUTANTS[name]
    monkeypatch.setattr(gpu, attribute, mutant)
    with pytest.raises(AssertionError, match="off by|not equal"):
        check(case, "float32", gradients=attribute in BACKWARD)


def writable(**shape) -> cases.Tensors:
    return {name: x.copy() for name, x in cases.inputs(**shape).items()}


def outputs(given: cases.Tensors, **how) -> np.ndarray:
    return np.asarray(jax.jit(lambda *qkv: attend(*qkv, **how))(*(given[n] for n in "qkv")))


@pytest.mark.parametrize(("length", "offset"), [(100, 0), (8, 53)])
def test_the_future_changes_nothing(length, offset, interpreted) -> None:
    """Keys from position 57 on concern queries from position 57 on."""
    given = writable(length=length, size=100, heads=2, kv_heads=1)
    before = outputs(given, q_offset=offset)
    for name in "kv":
        given[name][:, 57:] += 1.0
    changed = (outputs(given, q_offset=offset) != before).any((0, 2, 3))
    np.testing.assert_array_equal(changed, np.arange(length) + offset >= 57)


@pytest.mark.parametrize("length", [100, 16])
def test_segments_do_not_touch(length, interpreted) -> None:
    q_ends, size = ([30, 80], 100) if length == 100 else ([5, 12], 100)
    how = {"q_segments": segments(1, length, q_ends), "kv_segments": segments(1, size, [30, 80])}
    given = writable(length=length, size=size, heads=2, kv_heads=1)
    before = outputs(given, causal=False, **how)
    for name in "kv":
        given[name][:, 30:] += 1.0  # the second segment, and padding
    changed = (outputs(given, causal=False, **how) != before).any((0, 2, 3))
    np.testing.assert_array_equal(changed, np.asarray(how["q_segments"])[0] == 2)


@pytest.mark.parametrize("length", [40, 3])
def test_keys_not_in_use_are_not_read(length, interpreted) -> None:
    shape = {"batch": 2, "length": length, "size": 200, "heads": 4, "kv_heads": 2, "width": 72}
    given, how = writable(**shape), {"causal": False, "kv_length": np.array([70, 131])}
    right = cases.wanted(given, **how)
    for name in "kv":
        given[name][0, 70:] = given[name][1, 131:] = np.nan
    cases.assert_close(cases.run(given, "float32", attend, **how), right, "float32")


def test_masked_blocks_are_skipped() -> None:
    """Keys are visited up to the last that a tile sees; a mask is made only past whole blocks."""
    operand = jnp.zeros((1, 256, 1, 64), jnp.bfloat16)
    plan = gpu._plan("forward", operand, operand, True, 1.0)
    assert plan.tile[:2] == (128, 64)

    def blocks(first: int, end: int, q_segments=None) -> tuple[int, int]:
        limits = gpu.Limits(jnp.int32(0), jnp.int32(end), q_segments, q_segments)
        return tuple(int(x) for x in gpu._key_blocks(plan, limits, jnp.int32(first), 128))

    assert blocks(0, 256) == (0, 2)
    assert blocks(128, 256) == (2, 4)
    assert blocks(128, 200) == (2, 4)
    assert blocks(128, 190) == (2, 3)
    assert blocks(1000, 256) == (4, 4)
    assert blocks(-500, 256) == blocks(0, 0) == (0, 0)
    assert blocks(128, 256, jnp.ones(256, jnp.int32)) == (0, 4)


def test_what_is_supported() -> None:
    def supported(dtype="float32", width=64, k_dtype=None, length=4, mask=None) -> bool:
        q = jnp.zeros((1, length, 2, width), dtype)
        return gpu.supports(q, k := q.astype(k_dtype or dtype), k, Visible(mask=mask))

    assert supported() and supported("bfloat16", 72) and supported(width=128)
    assert (
        not supported("float16") and not supported(k_dtype="bfloat16") and not supported(width=129)
    )
    assert not supported(length=0) and not supported(mask=jnp.ones((1, 4, 4), bool))


def test_kernels_are_compiled_by_default() -> None:
    assert gpu.INTERPRET is False


@contextmanager
def hopper() -> Iterator[None]:
    """Newer versions of JAX lower kernels only for a GPU they know the name of."""
    device = jax.sharding.AbstractDevice("NVIDIA H200", None, "gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


def operands(length: int, size: int, width: int, dtype: str) -> list[jax.ShapeDtypeStruct]:
    shapes = [(2, length, 16, width), *[(2, size, 8, width)] * 2]
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def with_gradients(causal: bool, segmented: bool):
    def both(q, k, v, offset, used, q_segments, kv_segments):
        given = {"q_segments": q_segments, "kv_segments": kv_segments} if segmented else {}
        how = {"causal": causal, "q_offset": offset, "kv_length": used, **given}
        out, pull = jax.vjp(lambda *qkv: attend(*qkv, return_lse=True, **how), q, k, v)
        return out, pull(out)

    return both


def kernels(module: ir.Module) -> list[str]:
    """The Triton code of a program; reading it checks its types, which lowering does not."""
    found = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        if "__gpu$xla.gpu.triton" in str(operation.attributes.get("call_target_name")):
            code = ir.StringAttr(operation.attributes["mhlo.backend_config"]["ir"]).value_bytes
            with lowering._new_ir_context():
                found.append(str(ir.Module.parse(code)))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [64, 72, 128])
@pytest.mark.parametrize(
    ("length", "causal"), [(1000, True), (1000, False), (1, True), (16, False)]
)
def test_kernels_lower_for_cuda(length, causal, width, dtype) -> None:
    """Two of backward, and one of forward; with segments when queries see to both sides."""
    size = 1024 if length < 100 else length
    rows = [jax.ShapeDtypeStruct(shape, "int32") for shape in [(2,), (2,), (2, length), (2, size)]]
    with hopper():
        traced = jax.jit(with_gradients(causal, segmented=not causal)).trace(
            *operands(length, size, width, dtype), *rows
        )
        forward, d_q, d_kv = kernels(traced.lower(lowering_platforms=("cuda",)).compiler_ir())
    assert ("@decode_kernel" if length <= gpu.DECODE_LENGTH else "@forward_kernel") in forward
    assert "@d_q_kernel" in d_q and "@d_kv_kernel" in d_kv


def products(jaxpr) -> Iterator:
    """All matrix products of a program, in loops and kernels too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("length", [64, 1])
def test_float32_products_are_not_rounded(length) -> None:
    """Tensor cores would round operands to 10 bits; interpret mode does not show it."""
    rows = [jax.ShapeDtypeStruct(shape, "int32") for shape in [(2,), (2,), (2, length), (2, 64)]]
    given = (*operands(length, 64, 64, "float32"), *rows)
    found = list(products(jax.make_jaxpr(with_gradients(True, False))(*given).jaxpr))
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert len(found) >= 4 + 6 + 4  # twice in forward and in d_q, for whole and for cut blocks
    assert all(one.params["precision"] == highest for one in found)
