"""LoRA: no change at first, merged equals attached, the base untouched, modules as configured."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sf_jax.model import lora, text
from sf_jax.model.lora import Adapter, LoraConfig
from sf_jax.model.weights import unstack_layers
from sf_jax.sequence import images
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.forward import forward as sequence_forward

# Ranks and factors that differ by kind, by layer and by tower, and layers left out.
VARIED = LoraConfig(
    rank=4, alpha=6.0, exclude=r".*(layers\.1\.self_attn\.q_proj|blocks\.3\..*)",
    rank_pattern=((r"blocks\.0\.attn\.qkv", 2), (r"layers\.[23]\.mlp\.down_proj", 7), ("fc1", 3)),
    alpha_pattern=((r"layers\.0\..*", 11.0), (r"merger\.linear_fc2", 1.0)),
)  # fmt: skip

FAMILIES = [
    *(f"model.visual.blocks.{{}}.{x}" for x in ("attn.qkv", "attn.proj")),
    *(f"model.visual.blocks.{{}}.mlp.linear_{x}" for x in ("fc1", "fc2")),
    *(f"model.visual.merger.linear_{x}" for x in ("fc1", "fc2")),
    *(f"model.visual.deepstack_merger_list.{{}}.linear_{x}" for x in ("fc1", "fc2")),
    *(f"model.language_model.layers.{{}}.self_attn.{x}_proj" for x in "qkvo"),
    *(f"model.language_model.layers.{{}}.mlp.{x}_proj" for x in ("gate", "up", "down")),
]


@pytest.fixture(scope="module")
def forward(tiny_config, pictures):
    """Weights → logits of two rows with one textured, non-square picture each."""
    prompt = [1, 2, 8] + [7] * 6 + [9, 11, 12, 13, 14]
    rows = [
        [Example.of(prompt, images.image_inserts(prompt, [picture], tiny_config))]
        for picture in pictures[:2]
    ]
    batch = assemble(rows, images.capacity(tiny_config, len(prompt), 32))

    @jax.jit
    def run(weights):
        states, _ = sequence_forward(weights, batch, tiny_config)
        return text.logits(weights.text, states)

    return run


def filled(config, tiny_config, seed=3) -> Adapter:
    """An adapter that has learnt something: b is not zero where there is a rank."""
    generator = np.random.default_rng(seed)

    def make(module, inputs, rank, outputs):
        a = generator.normal(0, inputs**-0.5, (inputs, rank))
        return a, generator.normal(0, 0.1, (rank, outputs))

    return lora.build(config, tiny_config.declare(), make)


def relative(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


def test_a_fresh_adapter_changes_no_bit(tiny_config, tiny_weights, forward) -> None:
    for config in (LoraConfig(), VARIED):
        adapter = lora.initialise(config, tiny_config.declare(), seed=0)
        assert all(np.abs(np.asarray(pair.a)).max() > 0 for pair in adapter.pairs.values())
        attached = forward(lora.attach(tiny_weights, adapter, tiny_config.declare()))
        assert np.asarray(attached).tobytes() == np.asarray(forward(tiny_weights)).tobytes()


@pytest.mark.parametrize("config", [VARIED, replace(VARIED, rank_stabilised=True)])
def test_merged_equals_beside_and_comes_out_again(
    tiny_config, tiny_weights, forward, config
) -> None:
    adapter = filled(config, tiny_config)
    beside = forward(lora.attach(tiny_weights, adapter, tiny_config.declare()))
    merged = lora.merge(tiny_weights, adapter, tiny_config.declare())
    assert relative(forward(merged), beside) <= 1e-5
    assert relative(beside, forward(tiny_weights)) > 0.05
    base = lora.unmerge(merged, adapter, tiny_config.declare())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), base, tiny_weights)


def test_unstacked_layers_take_the_adapter_along(tiny_config, tiny_weights, forward) -> None:
    adapter = filled(VARIED, tiny_config)
    attached = lora.attach(tiny_weights, adapter, tiny_config.declare())
    assert relative(forward(unstack_layers(attached)), forward(attached)) <= 1e-5
    with pytest.raises(ValueError, match="before `unstack_layers`"):
        lora.attach(unstack_layers(tiny_weights), adapter, tiny_config.declare())


def test_two_adapters_add_up(tiny_config, tiny_weights, forward) -> None:
    first, second = filled(VARIED, tiny_config, 3), filled(LoraConfig(rank=2), tiny_config, 4)
    both = lora.attach(
        lora.attach(tiny_weights, first, tiny_config.declare()), second, tiny_config.declare()
    )
    merged = lora.merge(
        lora.merge(tiny_weights, first, tiny_config.declare()), second, tiny_config.declare()
    )
    assert relative(forward(both), forward(merged)) <= 1e-5
    with pytest.raises(ValueError, match="without an adapter beside them"):
        lora.merge(both, first, tiny_config.declare())


def test_every_linear_takes_an_adapter(tiny_config, tiny_weights, forward) -> None:
    """Each is applied where it should be: alone, beside equals merged and differs from the base."""
    whole = filled(LoraConfig(), tiny_config)
    base = forward(tiny_weights)
    for family, pair in whole.pairs.items():
        others = {k: p.replace(b=jnp.zeros_like(p.b)) for k, p in whole.pairs.items()}
        alone = whole.replace(pairs={**others, family: pair})
        beside = forward(lora.attach(tiny_weights, alone, tiny_config.declare()))
        assert (
            relative(forward(lora.merge(tiny_weights, alone, tiny_config.declare())), beside)
            <= 1e-5
        )
        assert relative(beside, base) > 1e-4, family


def test_all_linear_is_every_linear_but_the_patch_embedding(tiny_config) -> None:
    assert sorted(lora.families(LoraConfig(), tiny_config.declare())) == sorted(FAMILIES)


@pytest.mark.parametrize(
    "wrong", [replace(VARIED, alpha=1.0), replace(VARIED, alpha_pattern=()),
              replace(VARIED, rank_stabilised=True)],
    ids=["alpha ignored", "alpha pattern ignored", "other scaling"],
)  # fmt: skip
def test_the_scale_matters(tiny_config, tiny_weights, forward, wrong) -> None:
    adapter = filled(VARIED, tiny_config)
    right = forward(lora.merge(tiny_weights, adapter, tiny_config.declare()))
    mutant = forward(
        lora.attach(tiny_weights, adapter.replace(config=wrong), tiny_config.declare())
    )
    assert relative(mutant, right) > 1e-3


def test_ranks_and_scales_by_pattern() -> None:
    layer = "model.language_model.layers.{}.{}".format
    assert VARIED.rank_of("model.visual.blocks.0.attn.qkv") == 2
    assert VARIED.rank_of("model.visual.blocks.1.attn.qkv") == 4
    assert VARIED.rank_of("model.visual.blocks.3.attn.qkv") == 0
    assert VARIED.rank_of(layer(3, "mlp.down_proj")) == 7
    # "fc1" fits whole parts of a name only
    assert VARIED.rank_of("model.visual.blocks.1.mlp.linear_fc1") == 4
    assert VARIED.scale_of(layer(0, "mlp.up_proj")) == 11 / 4
    assert VARIED.scale_of(layer(2, "mlp.down_proj")) == 6 / 7
    assert VARIED.scale_of(layer(1, "self_attn.q_proj")) == 0
    stable = replace(VARIED, rank_stabilised=True)
    assert stable.scale_of(layer(2, "mlp.down_proj")) == pytest.approx(6 / 7**0.5)


def test_targets_by_ending_and_layer() -> None:
    config = LoraConfig(("q_proj", "mlp.linear_fc1"), layers=(1, 2))
    assert config.chooses("model.language_model.layers.1.self_attn.q_proj")
    assert not config.chooses("model.language_model.layers.0.self_attn.q_proj")
    assert config.chooses("model.visual.blocks.2.mlp.linear_fc1")
    assert not config.chooses("model.visual.merger.linear_fc1")
    assert not config.chooses("model.language_model.layers.1.self_attn.xq_proj")
    blocks = replace(config, layers_pattern=("blocks",))
    assert blocks.chooses("model.visual.blocks.2.mlp.linear_fc1")
    assert not blocks.chooses("model.language_model.layers.1.self_attn.q_proj")


def test_only_chosen_layers_change(tiny_config, tiny_weights) -> None:
    adapter = filled(LoraConfig(("q_proj",), layers=(1, 3)), tiny_config)
    merged = lora.merge(tiny_weights, adapter, tiny_config.declare())
    change = np.abs(np.asarray(merged.text.layers.q.weight - tiny_weights.text.layers.q.weight))
    assert [bool(c.max() > 0) for c in change] == [False, True, False, True]
    untouched = merged.replace(
        text=merged.text.replace(layers=merged.text.layers.replace(q=tiny_weights.text.layers.q))
    )
    jax.tree.map(np.testing.assert_array_equal, untouched, tiny_weights)


def test_training_moves_the_adapter_alone(tiny_config, tiny_weights, forward) -> None:
    """The base has neither gradient nor optimiser state; padding stays zero."""
    before = jax.tree.map(np.array, tiny_weights)
    adapter = lora.initialise(VARIED, tiny_config.declare(), seed=1)
    optimizer = optax.adamw(1e-2)
    state = optimizer.init(adapter)
    size = sum(x.size for x in jax.tree.leaves(adapter))
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * size + 1  # two moments and a count

    def loss(adapter):
        scores = forward(lora.attach(tiny_weights, adapter, tiny_config.declare()))
        return -jax.nn.log_softmax(scores)[..., 5].mean()

    losses = []
    step = jax.jit(jax.value_and_grad(loss))
    for _ in range(3):
        value, gradient = step(adapter)
        assert jax.tree.structure(gradient) == jax.tree.structure(adapter)
        updates, state = optimizer.update(gradient, state, adapter)
        adapter = optax.apply_updates(adapter, updates)
        losses.append(float(value))
    assert losses[2] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, tiny_weights, before)
    for family, pair in adapter.pairs.items():
        assert np.abs(np.asarray(pair.b)).max() > 0, family
    trimmed = {name: (a, b) for name, a, b in lora.modules(adapter, tiny_config.declare())}
    again = lora.build(VARIED, tiny_config.declare(), lambda module, *_: trimmed[module])
    jax.tree.map(np.testing.assert_array_equal, again, adapter)


def test_rounded_products_stay_close(tiny_config, tiny_weights, forward) -> None:
    """bfloat16 weights and adapter: the addition follows the type of the states."""
    adapter = filled(VARIED, tiny_config)
    exact = forward(lora.attach(tiny_weights, adapter, tiny_config.declare()))
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16), (tiny_weights, adapter)
    )  # the scale is no leaf of the adapter and stays exact
    attached = forward(lora.attach(*rounded, tiny_config.declare()))
    merged = lora.merge(*rounded, tiny_config.declare())
    assert merged.text.layers.q.weight.dtype == jnp.bfloat16
    assert 0 < np.linalg.norm(attached - exact) / np.linalg.norm(exact) < 0.1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("c_attn",), "choose no linear"),
        (("proj",), "'model.visual.patch_embed.proj', which is no linear"),
        (("q_proj", "lm_head"), "'lm_head', which is no linear"),
        (r".*embed_tokens", "embed_tokens', which is no linear"),
        (r".*norm1", "blocks.0.norm1', which is no linear"),
        ("(", "not a regular expression"),
    ],
)
def test_targets_that_cannot_be_adapted(tiny_config, targets, message) -> None:
    with pytest.raises(ValueError, match=message):
        lora.initialise(LoraConfig(targets), tiny_config.declare(), 0)


def test_bad_ranks_and_other_bases(tiny_config, tiny_weights) -> None:
    with pytest.raises(ValueError, match="rank is 0"):
        LoraConfig(rank_pattern=(("q_proj", 0),))
    with pytest.raises(ValueError, match="layers go with a list"):
        LoraConfig(layers=(1,))
    adapter = lora.initialise(LoraConfig(("k_proj",)), tiny_config.declare(), 0)
    wider = replace(tiny_config, text=replace(tiny_config.text, hidden_size=32))
    assert wider.declare().text.layers.k.weight.shape == (4, 32, 32)
    with pytest.raises(ValueError, match=r"k_proj' has factors .* expected \(4, 32, 'R'\)"):
        lora.merge(tiny_weights, adapter, wider.declare())
