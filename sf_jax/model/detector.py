"""A small convolutional detector of centres: images in, one score, box and set of points a cell.

Four stages halve the resolution, from a quarter of the image's to a thirty-second; the coarse
stages are added back to the finer ones, and a head answers for each cell of 8 × 8 pixels. An object
is found where the score has a peak, after CenterNet (Zhou et al., Objects as Points,
arXiv:1904.07850); there are no anchors. Whole convolutions are used, which XLA runs on a CPU at
twenty times the speed of its depthwise ones.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, UInt8

from sf_jax.model.declared import Declarer, Linear, Norm
from sf_jax.model.linear import linear
from sf_jax.model.norms import layer_norm

STRIDE = 8  # pixels a side of a cell
COARSEST = 32  # image sides are multiples of it
TYPICAL_SIDE = 64.0  # pixels; the side of a box whose stored logarithm is 0
PADDING = 128  # the grey of pixels outside an image, which the network sees as about 0


@dataclass(frozen=True)
class DetectorConfig:
    """Attributes:
    widths: channels at 1/4, 1/8, 1/16 and 1/32 of the resolution; depths: residual blocks there.
    neck: channels where the stages are added up; head: of the last hidden layer.
    points: of an object, beside its centre.
    """

    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    depths: tuple[int, int, int, int] = (1, 2, 3, 3)
    neck: int = 48
    head: int = 64
    points: int = 5

    @property
    def outputs(self) -> int:
        """Numbers a cell: score, logarithm of the side, centre and points."""
        return 2 + 2 * (1 + self.points)


@struct.dataclass
class Block:
    """A residual block of two convolutions."""

    norm: Norm
    first: Linear
    second: Linear


@struct.dataclass
class Stage:
    """One resolution: its patches are joined linearly, blocks follow."""

    enter: Linear
    blocks: tuple[Block, ...]


@struct.dataclass
class DetectorWeights:
    """All weights; `lateral` and `merge` are ordered from 1/8 of the resolution to 1/32."""

    stages: tuple[Stage, ...]
    lateral: tuple[Linear, ...]
    merge: tuple[Linear, ...]
    norm: Norm
    head: Linear
    out: Linear


@struct.dataclass
class Detections:
    """What the network says of each cell; H × W cells.

    Attributes:
      score: logits. side: logarithm of the box's side over `TYPICAL_SIDE` pixels.
      points: of the box's centre and then of the further points, x and y from the cell's centre,
        in sides of the box.
    """

    score: Float[Array, "B H W"]
    side: Float[Array, "B H W"]
    points: Float[Array, "B H W P 2"]


def declare(config: DetectorConfig) -> DetectorWeights:
    """The tree of weight declarations."""
    stages, inputs, size = [], 3, 4
    for number, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        part = Declarer(f"stages.{number}")
        enter = part.convolution("enter", ("pixel", "channel"), (inputs, size, size), width)
        blocks = tuple(
            _declare_block(Declarer(f"stages.{number}.{i}"), width) for i in range(depth)
        )
        stages.append(Stage(enter, blocks))
        inputs, size = width, 2
    part, neck = Declarer("neck"), config.neck
    lateral = tuple(
        part.convolution(f"lateral.{i}", ("pixel", "channel"), (width, 1, 1), neck)
        for i, width in enumerate(config.widths[1:])
    )
    merge = tuple(
        part.convolution(f"merge.{i}", ("pixel", "channel"), (neck, 3, 3), neck) for i in range(2)
    )
    return DetectorWeights(
        tuple(stages),
        lateral,
        merge,
        part.norm("norm", neck, "channel", bias=True),
        part.convolution("head", ("pixel", "channel"), (neck, 3, 3), config.head),
        part.linear("out", ("channel", "output"), (config.head, config.outputs)),
    )


def _declare_block(part: Declarer, width: int) -> Block:
    def convolution(name: str) -> Linear:
        return part.convolution(name, ("pixel", "channel"), (width, 3, 3), width)

    return Block(
        part.norm("norm", width, "channel", bias=True), convolution("first"), convolution("second")
    )


def _convolve(x_BHWC: Array, layer: Linear, size: int, stride: int = 1) -> Array:
    """A convolution with the weights [C × size × size, O] of a `Declarer.convolution`."""
    inputs = x_BHWC.shape[-1]
    kernel = layer.weight.reshape(inputs, size, size, -1)
    out = jax.lax.conv_general_dilated(
        x_BHWC,
        kernel.astype(x_BHWC.dtype),
        (stride, stride),
        "SAME" if stride == 1 else "VALID",
        dimension_numbers=("NHWC", "IHWO", "NHWC"),
    )
    return out if layer.bias is None else out + layer.bias.astype(x_BHWC.dtype)


def _patches(x_BHWC: Array, layer: Linear, size: int) -> Array:
    """Patches of size × size as vectors (channel, row, column), times a matrix."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // size, size, width // size, size, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // size, width // size, -1)
    return linear(x, layer.weight, layer.bias)


def _block(x_BHWC: Array, block: Block) -> Array:
    hidden = jax.nn.relu(_convolve(layer_norm(x_BHWC, block.norm), block.first, 3))
    return x_BHWC + _convolve(hidden, block.second, 3)


def _doubled(x_BHWC: Array) -> Array:
    """Each cell repeated in both directions."""
    batch, height, width, channels = x_BHWC.shape
    x = jnp.broadcast_to(x_BHWC[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def forward(
    weights: DetectorWeights, images: UInt8[Array, "B H W 3"], config: DetectorConfig
) -> Detections:
    """What each cell of the images shows; H and W are multiples of `COARSEST`."""
    x = images.astype(jnp.float32) / 64.0 - 2.0
    levels, size = [], 4
    for stage in weights.stages:
        x, size = _patches(x, stage.enter, size), 2
        for block in stage.blocks:
            x = _block(x, block)
        levels.append(x)
    features = [
        linear(x, layer.weight, layer.bias)
        for x, layer in zip(levels[1:], weights.lateral, strict=True)
    ]
    x = features[-1]
    for finer, merge in zip(features[-2::-1], weights.merge[::-1], strict=True):
        x = _doubled(x) + finer
        x = x + jax.nn.relu(_convolve(x, merge, 3))
    x = jax.nn.relu(_convolve(layer_norm(x, weights.norm), weights.head, 3))
    out = linear(x, weights.out.weight, weights.out.bias)
    return Detections(
        out[..., 0], out[..., 1], out[..., 2:].reshape(*out.shape[:3], 1 + config.points, 2)
    )
