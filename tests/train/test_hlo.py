"""What a compiled program does, against numbers known from its shapes.

python -m tests.train.test_hlo compiles the collectives for eight virtual devices and lists them.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from sf_jax.train.hlo import Kernel, Program, Shape, analyse
from tests import compiling, for_tpu


def text_of(f: Any, *shapes: tuple[int, ...], dtype: str = "float32") -> str:
    given = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.jit(f).lower(*given).compile().as_text()


def program(f: Any, *shapes: tuple[int, ...], dtype: str = "float32") -> Program:
    return analyse(text_of(f, *shapes, dtype=dtype))


def mlp(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """Sum over the last of scanned layers."""

    def layer(x: jax.Array, weights: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return x + jnp.tanh(x @ weights[0]) @ weights[1], None

    return jax.lax.scan(layer, x, (up, down))[0].sum()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("rule", "shapes", "products"),
    [
        ("ij,jk->ik", ((256, 96), (96, 40)), 256 * 96 * 40),
        ("ij,kj->ik", ((24, 96), (40, 96)), 24 * 96 * 40),
        ("bij,bjk->bik", ((6, 24, 96), (6, 96, 40)), 6 * 24 * 96 * 40),
        ("btnh,bsnh->bnts", ((2, 64, 4, 16), (2, 48, 4, 16)), 2 * 4 * 64 * 48 * 16),
        ("ij,j->i", ((256, 96), (96,)), 256 * 96),
    ],
)
def test_dot_products(rule: str, shapes: Any, products: int, dtype: str) -> None:
    found = program(partial(jnp.einsum, rule), *shapes, dtype=dtype)
    assert found.floating_point_operations == 2 * products
    assert not found.loops and not found.collectives and not found.kernels


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 3, 4)])
def test_convolutions_count_products_with_inputs(
    padding: str, stride: int, dilation: int, groups: int
) -> None:
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        rhs_dilation=(dilation, dilation),
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    found = program(convolve, (2, 15, 12, 8), (3, 2, 8 // groups, 16))
    met = convolve(jnp.ones((2, 15, 12, 8)), jnp.ones((3, 2, 8 // groups, 16)))
    assert found.floating_point_operations == 2 * int(met.sum())


def test_a_scan_counts_as_often_as_it_runs() -> None:
    def forward(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    found = program(forward, (16, 32), (7, 32, 32))
    assert found.floating_point_operations == 7 * 2 * 16 * 32 * 32
    assert [loop.trips for loop in found.loops] == [7]
    assert not found.unknown_loops


def test_nested_scans_multiply() -> None:
    def forward(x: jax.Array, weights: jax.Array) -> jax.Array:
        def outer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x, weights)[0]

    found = program(forward, (16, 32), (3, 32, 32))
    assert found.floating_point_operations == 15 * 2 * 16 * 32 * 32
    assert sorted(loop.trips or 0 for loop in found.loops) == [3, 5]


def test_a_gradient_has_three_times_the_products() -> None:
    shapes = (16, 32), (4, 32, 64), (4, 64, 32)
    forward = program(mlp, *shapes)
    assert forward.floating_point_operations == 4 * 2 * 2 * 16 * 32 * 64
    both = program(jax.value_and_grad(mlp, (0, 1, 2)), *shapes)
    assert both.floating_point_operations == 3 * forward.floating_point_operations


def test_depth_is_not_in_the_size_of_a_scanned_program() -> None:
    four, eight = (
        program(jax.grad(mlp, (1, 2)), (16, 32), (depth, 32, 64), (depth, 64, 32))
        for depth in (4, 8)
    )
    assert eight.instructions == four.instructions > 0
    assert eight.floating_point_operations == 2 * four.floating_point_operations


@pytest.mark.parametrize(
    ("first", "last", "step", "compare"),
    [
        (0, 20, 1, jnp.less), (2, 20, 3, jnp.less), (2, 20, 3, jnp.less_equal), (5, 5, 1, jnp.less),
        (20, 2, -3, jnp.greater), (20, 2, -3, jnp.greater_equal), (0, 9, 3, jnp.not_equal),
    ],
)  # fmt: skip
def test_trips_are_derived_where_they_are_not_stated(
    first: int, last: int, step: int, compare: Any
) -> None:
    def forward(x: jax.Array) -> jax.Array:
        def body(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return state[0] + step, jnp.tanh(state[1] @ x)

        return jax.lax.while_loop(lambda s: compare(s[0], last), body, (jnp.int32(first), x))[1]

    text = text_of(forward, (16, 16))
    times = 0
    while compare(first + times * step, last):
        times += 1
    derived = analyse(re.sub(r'"known_trip_count":\{[^}]*\}', "", text))
    for found in (analyse(text), derived):
        assert found.floating_point_operations == times * 2 * 16**3
        assert not found.unknown_loops
    assert [loop.source for loop in derived.loops] == ["derived"] * len(derived.loops)


def test_a_loop_of_unknown_length_is_named() -> None:
    def forward(x: jax.Array) -> jax.Array:
        def settle(x: jax.Array, _: Any) -> tuple[jax.Array, None]:
            return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: jnp.tanh(x @ x), x), None

        return jax.lax.scan(settle, x, None, length=3)[0]

    found = program(forward, (16, 16))
    (name,) = found.unknown_loops
    assert found.floating_point_operations == 3 * 2 * 16**3
    assert {loop.name: loop.source for loop in found.loops}[name] == "unknown"


def test_of_branches_the_largest_counts() -> None:
    def forward(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: jnp.tanh(x @ x) @ x, x)

    assert program(forward, (32, 32)).floating_point_operations == 2 * 2 * 32**3


def test_host_callbacks_and_custom_calls() -> None:
    def forward(x: jax.Array) -> jax.Array:
        def body(x: jax.Array, _: Any) -> tuple[jax.Array, None]:
            jax.debug.callback(lambda x: None, x.sum())
            return jnp.linalg.cholesky(x @ x), None

        return jax.lax.scan(body, x, None, length=3)[0]

    found = program(forward, (16, 16))
    assert found.host_transfers == 3
    assert [kernel.count for kernel in found.kernels if "potrf" in kernel.target] == [3]


def test_what_is_not_a_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        analyse("module @jit_step {\n}\n")


PRODUCTS = [  # as a TPU's compiler writes those of batches, and how many there are
    (
        "bf16[512,2048,1]", "bf16[48,128,2048]", "bf16[512,48,128]",
        "window={size=48 pad=47_47 rhs_reversal=1}, dim_labels=bf0_0oi->b0f",
        512 * 48 * 128 * 2048,
    ),
    (
        "bf16[2,16,512,128]", "bf16[2,512,16,128]", "f32[2,16,512,512]",
        "window={size=2x16 stride=1x15 lhs_dilate=2x16}, dim_labels=01bf_0o1i->01bf",
        2 * 16 * 512 * 512 * 128,
    ),
    (
        "bf16[2,512,16,128]", "bf16[2,512,16,128]", "f32[2,16,512,512]",
        "window={size=2x16 stride=1x15 pad=0_0x0_-512 lhs_dilate=2x16},"
        " dim_labels=0b1f_0o1i->01bf",
        2 * 16 * 512 * 512 * 128,
    ),
    (
        "bf16[2,512,2,128,1]", "bf16[48,128,2,128,1]", "bf16[2,512,48,128,1]",
        "window={size=1x48x2 pad=0_0x47_47x0_0 rhs_reversal=0x1x0},"
        " dim_labels=0b2f1_1o2i0->0b1f2",
        2 * 512 * 48 * 128 * 2 * 128,
    ),
    (
        "bf16[2048,2,128,1]", "bf16[2,512,2048,1]", "bf16[2,128,2,512]",
        "window={size=1x2 pad=0_0x1_1 rhs_reversal=0x1}, dim_labels=f0b1_1oi0->0b1f",
        2 * 128 * 2 * 512 * 2048,
    ),
    (
        "bf16[2,512,2,128]", "bf16[2,512,8192,1]", "bf16[2,128,8192,1]",
        "window={size=1x2}, dim_labels=1f0b_1io0->0bf1", 2 * 128 * 8192 * 2 * 512,
    ),
    (
        "bf16[2048,512]", "bf16[512,96]", "bf16[2048,96]", "dim_labels=bf_io->bf", 2048 * 512 * 96,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "result", "how", "products"), PRODUCTS)
def test_padding_is_not_multiplied(
    left: str, right: str, result: str, how: str, products: int
) -> None:
    layout = "{1,0:T(8,128)(2,1)S(1)}"
    text = f"""HloModule jit_step, is_scheduled=true

%fused_computation (a: {left}, b: {right}) -> {result} {{
  %a = {left}{layout} parameter(0)
  %b = {right}{layout} parameter(1)
  ROOT %convolution.9 = {result}{layout} convolution(%a, %b), {how}, metadata={{op_name="dot"}}
}}

ENTRY %main.1_spmd (x.1: {left}, w.1: {right}) -> {result} {{
  %x.1 = {left}{layout} parameter(0)
  %w.1 = {right}{layout} parameter(1)
  ROOT %fusion.1 = {result}{layout} fusion(%x.1, %w.1), kind=kOutput, calls=%fused_computation
}}
"""
    assert analyse(text).floating_point_operations == 2 * products


# A loop that a TPU runs nine times, which is not stated: an all-gather spread over the fusions
# beside it, kernels, and a sum of which each chip keeps a slice.
ON_A_TPU = """HloModule jit_step, is_scheduled=true, num_partitions=8

%gather_start (p.1: bf16[256,64]) -> (bf16[256,64], bf16[2048,64], u32[]) {
  %p.1 = bf16[256,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[2048,64]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=7, \
replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}, \
frontend_attributes={chain_id="0"}, metadata={op_name="layer/gather"}
  ROOT %custom-call.1 = (bf16[256,64]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/bf16[2048,64]{1,0}, \
u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (p.2: bf16[256,64], p.3: bf16[32,64]) -> (bf16[2048,64], bf16[32,32]) {
  %p.2 = bf16[256,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %p.3 = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(1)
  %convolution.2 = bf16[32,32]{1,0:T(8,128)(2,1)} convolution(%p.3, %p.3), dim_labels=bf_oi->bf
  %all-gather.2 = bf16[2048,64]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=7, \
replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}, \
frontend_attributes={chain_id="0"}, metadata={op_name="layer/gather"}
  ROOT %tuple.2 = (bf16[2048,64]{1,0}, bf16[32,32]{1,0}) tuple(%all-gather.2, %convolution.2)
}

%add.5 (x: bf16[], y: bf16[]) -> bf16[] {
  %x = bf16[]{:T(256)} parameter(0)
  %y = bf16[]{:T(256)} parameter(1)
  ROOT %add.6 = bf16[]{:T(256)} add(%x, %y)
}

%all-reduce-scatter.clone.1 (input.3: bf16[60,64]) -> bf16[8,64] {
  %input.3 = bf16[60,64]{1,0:T(8,128)(2,1)} parameter(0)
  %zero.3 = bf16[] constant(0)
  %pad.3 = bf16[64,64]{1,0:T(8,128)(2,1)} pad(%input.3, %zero.3), padding=0_4x0_0
  %all-reduce.3 = bf16[64,64]{1,0:T(8,128)(2,1)} all-reduce(%pad.3), channel_id=9, \
replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%add.5
  %place.3 = u32[] partition-id()
  ROOT %dynamic-slice.3 = bf16[8,64]{1,0} dynamic-slice(%all-reduce.3, %place.3, %place.3), \
dynamic_slice_sizes={8,64}
}

%body.4 (state.4: (s32[], bf16[256,64], bf16[32,64], s32[])) -> (s32[], bf16[256,64], bf16[32,64], \
s32[]) {
  %state.4 = (s32[]{:T(128)}, bf16[256,64]{1,0}, bf16[32,64]{1,0}, s32[]) parameter(0)
  %counter.4 = s32[]{:T(128)} get-tuple-element(%state.4), index=0
  %two.4 = s32[]{:T(128)} constant(2)
  %add.4 = s32[]{:T(128)} add(%counter.4, %two.4)
  %part.4 = bf16[256,64]{1,0} get-tuple-element(%state.4), index=1
  %x.4 = bf16[32,64]{1,0} get-tuple-element(%state.4), index=2
  %limit.4 = s32[] get-tuple-element(%state.4), index=3
  %start.4 = (bf16[256,64]{1,0}, bf16[2048,64]{1,0}, u32[]) fusion(%part.4), kind=kCustom, \
calls=%gather_start
  %fusion.4 = (bf16[2048,64]{1,0}, bf16[32,32]{1,0}) fusion(%part.4, %x.4), kind=kOutput, \
calls=%async_collective_fusion.2
  %wide.4 = bf16[60,64]{1,0} custom-call(%x.4), custom_call_target="tpu_custom_call", \
metadata={op_name="layer/widen"}, backend_config={"custom_call_config":{"body":"TUzvUgE("}}
  %widen_rows.7.remat2 = bf16[60,64]{1,0} custom-call(%x.4, /*index=1*/%wide.4), \
custom_call_target="tpu_custom_call", metadata={op_name="layer/widen"}
  %sum.4 = bf16[8,64]{1,0} fusion(%widen_rows.7.remat2), kind=kCustom, \
calls=%all-reduce-scatter.clone.1
  ROOT %tuple.4 = (s32[], bf16[256,64]{1,0}, bf16[32,64]{1,0}, s32[]) tuple(%add.4, %part.4, \
%x.4, %limit.4)
}

%condition.5 (state.5: (s32[], bf16[256,64], bf16[32,64], s32[])) -> pred[] {
  %state.5 = (s32[]{:T(128)}, bf16[256,64]{1,0}, bf16[32,64]{1,0}, s32[]) parameter(0)
  %limit.5 = s32[]{:T(128)} get-tuple-element(%state.5), index=3
  %counter.5 = s32[]{:T(128)} get-tuple-element(%state.5), index=0
  ROOT %compare.5 = pred[]{:T(512)} compare(%limit.5, %counter.5), direction=GT
}

%moved.6 (p.6: bf16[32,64]) -> bf16[32,64] {
  %p.6 = bf16[32,64]{1,0} parameter(0)
  ROOT %all-reduce.6 = bf16[32,64]{1,0} all-reduce(%p.6), replica_groups={}, to_apply=%add.5
}

ENTRY %main.9_spmd (part: bf16[256,64], x.9: bf16[32,64]) -> bf16[32,64] {
  %part = bf16[256,64]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="weights"}
  %x.9 = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(1), metadata={op_name="x"}
  %three = s32[]{:T(128)} constant(3)
  %copy.9 = s32[]{:T(128)} copy(%three)
  %twenty = s32[]{:T(128)} constant(20)
  %tuple.9 = (s32[], bf16[256,64]{1,0}, bf16[32,64]{1,0}, s32[]) tuple(%copy.9, %part, %x.9, \
%twenty)
  %while.9 = (s32[]{:T(128)}, bf16[256,64]{1,0}, bf16[32,64]{1,0}, s32[]) while(%tuple.9), \
condition=%condition.5, body=%body.4, metadata={op_name="layers"}
  %last.9 = bf16[32,64]{1,0} get-tuple-element(%while.9), index=2
  %call-start.9 = ((bf16[32,64]{1,0}), bf16[32,64]{1,0}, s32[]) call-start(%last.9), \
async_execution_thread="sparsecore", to_apply=%moved.6
  ROOT %call-done.9 = bf16[32,64]{1,0} call-done(%call-start.9)
}
"""


def test_forms_that_only_a_tpu_has() -> None:
    found = analyse(ON_A_TPU)
    assert [(loop.trips, loop.source, loop.op_name) for loop in found.loops] == [
        (9, "derived", "layers")
    ]
    assert found.floating_point_operations == 9 * 2 * 32 * 32 * 64
    moved = {each.kind: each for each in found.collectives}
    assert len(moved) == len(found.collectives) == 3
    assert all(each.group == tuple(range(8)) for each in moved.values())
    gathered, scattered, summed = (
        moved[kind] for kind in ("all-gather", "reduce-scatter", "all-reduce")
    )
    assert (gathered.count, gathered.payload_bytes) == (9, 2048 * 64 * 2)
    assert (gathered.asynchronous, gathered.op_name) == (True, "layer/gather")
    assert (scattered.count, scattered.payload_bytes) == (9, 64 * 64 * 2)  # with its padding
    assert (scattered.asynchronous, scattered.op_name) == (False, "layer/widen")
    assert (summed.count, summed.payload_bytes) == (1, 32 * 64 * 2)
    assert (summed.asynchronous, summed.op_name) == (True, "layers")
    x, wide = Shape("bf16", (32, 64)), Shape("bf16", (60, 64))
    widen = partial(Kernel, target="tpu_custom_call", op_name="layer/widen", count=9)
    assert found.kernels == (
        widen(name="wide", operands=(x,), results=(wide,)),
        widen(name="widen_rows", operands=(x, wide), results=(wide,)),
    )


def test_a_collective_that_begins_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="asynchronous collectives 0"):
        analyse(ON_A_TPU.replace("AsyncCollectiveStart", "Begin"))


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("{{0,2,4,6},{1,3,5,7}}", (0, 2, 4, 6)),
        ("{}", tuple(range(8))),
        ("[8,2]<=[16]", (0, 1)),
        ("[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", (0, 2, 4, 6)),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", tuple(range(8))),
        ("mesh['x'=8,'y'=2] {'x':(2)2,'y'}", (0, 1, 4, 5)),
        ("mesh['x'=4,'y'=2], device_ids=([8]<=[2,4]T(1,0)) {'y'}", (0, 4)),
    ],
)
def test_groups_in_every_notation(groups: str, first: tuple[int, ...]) -> None:
    text = f"""HloModule jit_f, num_partitions=8

ENTRY %main (x: f32[4,6]) -> f32[4,6] {{
  %x = f32[4,6]{{1,0}} parameter(0)
  ROOT %all-reduce = f32[4,6]{{1,0}} all-reduce(%x), channel_id=1, replica_groups={groups}, \
use_global_device_ids=true, to_apply=%add
}}
"""
    (found,) = analyse(text).collectives
    assert found.group == first
    assert found.group_size == len(first)
    assert found.total_bytes == 4 * 6 * 4


def scanned_collectives() -> Program:
    """Five kinds of collectives, three times each; a device of the mesh of 4 x 2 has 16 x 10."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))

    def body(x: jax.Array, _: Any) -> tuple[jax.Array, None]:
        x = x + jax.lax.psum(x, "a")
        x = x + jax.lax.all_gather(x, "b", tiled=True)[:16]
        x = x + jnp.tile(jax.lax.psum_scatter(x, "a", tiled=True), (4, 1))
        x = x + jax.lax.ppermute(x, "a", [(i, (i + 1) % 4) for i in range(4)])
        return x + jax.lax.all_to_all(x, "b", 0, 0, tiled=True), None

    rows = PartitionSpec(("a", "b"))
    shared = jax.shard_map(
        lambda x: jax.lax.scan(body, x, None, length=3)[0],
        mesh=mesh,
        in_specs=rows,
        out_specs=rows,
        check_vma=False,
    )
    return program(shared, (128, 10))


def test_collectives_on_eight_devices() -> None:
    """In a process of its own, because the number of devices is fixed when JAX starts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.test_hlo"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=compiling.environment(devices=8),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])["collectives"]
    size = 16 * 10 * 4
    assert {each["kind"]: (each["count"], each["payload_bytes"]) for each in found} == {
        "all-reduce": (3, size), "all-gather": (3, 2 * size), "reduce-scatter": (3, size),
        "collective-permute": (3, size), "all-to-all": (3, size),
    }  # fmt: skip
    along = {"all-gather": [0, 1], "all-to-all": [0, 1]}
    for each in found:
        assert each["group"] == along.get(each["kind"], [0, 2, 4, 6])
        assert "while/body" in each["op_name"]
    assert len(found) == 5


@pytest.fixture(scope="module")
def steps() -> dict[str, Any]:
    return for_tpu.compiled("tests.train.hlo_for_tpu")


@pytest.mark.parametrize("name", ["fsdp", "fsdp and tensor"])
def test_a_train_step_on_eight_tpu_chips(steps: dict[str, Any], name: str) -> None:
    """Weights are gathered once in each direction, their gradients summed into slices.

    All have two bytes a number. Along "tensor", one sum of activations a layer and direction.
    """
    case = steps[name]
    found, layers, fsdp, tensor = (case[key] for key in ("program", "layers", "fsdp", "tensor"))
    positions = case["positions"] // fsdp
    weights = layers * 2 * case["width"] * case["hidden"] // tensor  # of a chip, once gathered
    operations = 3 * 2 * positions * weights
    assert abs(found["floating_point_operations"] / operations - 1) < 0.01
    assert [loop["trips"] for loop in found["loops"]] == [layers, layers]
    assert not found["kernels"] and not found["host_transfers"]

    moved: Counter[tuple[str, int]] = Counter()
    for each in found["collectives"]:
        moved[each["kind"], len(each["group"])] += each["count"] * each["payload_bytes"]
    wanted = Counter({("all-gather", fsdp): 2 * 2 * weights, ("reduce-scatter", fsdp): 2 * weights})
    wanted["all-reduce", fsdp] += 4  # the loss
    if tensor > 1:
        wanted["all-reduce", tensor] += 2 * layers * positions * case["width"] * 2
    assert moved == wanted
    asynchronous = {each["kind"] for each in found["collectives"] if each["asynchronous"]}
    assert asynchronous == {"all-gather"}


if __name__ == "__main__":
    print(json.dumps(asdict(scanned_collectives())))
