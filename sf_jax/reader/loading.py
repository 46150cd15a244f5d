"""Model directories: loading one, or a part of it, and writing one."""

import contextlib
import hashlib
import os
import platform
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sf_jax.convert import checksums, hf, tokenizer_json
from sf_jax.convert.processor import FILE as PROCESSOR_FILE
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode.drafts import load_heads
from sf_jax.decode.policy import cpu_instructions, policy_of
from sf_jax.decode.schema import Schema
from sf_jax.decode.schema_file import write_schema
from sf_jax.face.landmarks import COUNT
from sf_jax.media import files
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.reader import calibration, finder, provenance, readout, reliability, turning
from sf_jax.reader.estimator import Model
from sf_jax.reader.framing import Framer
from sf_jax.reader.landmarks import Landmarks
from sf_jax.reader.schema import channel_indices, channel_schema, read_channel_schema
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.tokenizer import IMAGE, Tokenizer

BUILTIN = Path(__file__).parents[1] / "builtin" / "semanticface"
MAX_IMAGE_TOKENS = 1024  # as the released SemanticFace is run
DRAFT_HEADS_FILE = "draft_heads.safetensors"


def load(
    directory: str | os.PathLike | None = None,
    adapter: str | os.PathLike | None = None,
    *,
    dtype: DTypeLike | None = None,
    max_image_tokens: int = MAX_IMAGE_TOKENS,
) -> Model:
    """Loads a model directory, by default the built-in one.

    A directory holds `config.json`, the weights, `preprocessor_config.json`, `tokenizer.model`
    (built-in kind) or `tokenizer.json` (Qwen's), and `schema.json`, without which the model reads
    all 61 channels. A directory that holds `finder.safetensors`, and in `readout.safetensors` a
    read-out of the landmarks of `face.landmarks`, is of a model that reads framed faces. Any other
    model reads whole images unless it is asked to frame faces, which the built-in model's files
    then do.

    Args:
      adapter: directory of a LoRA adapter in PEFT's layout, kept beside the weights.
      dtype: of the weights, and of the operands of products; None means float32 on a CPU, bfloat16
        elsewhere.
      max_image_tokens: larger images are shrunk to so many.

    Raises:
      CheckpointError, TokenizerError, ProcessorError: a file is missing, cannot be read or differs
        from its checksum.
      SchemaFileError: `schema.json` holds what is no schema of channels; names the field.
      ValueError: draft heads do not fit the model.
    """
    folder = BUILTIN if directory is None else Path(directory)
    platform = jax.default_backend()
    if dtype is None:
        dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    schema = load_schema(folder)
    config, weights = hf.load(folder, adapter, dtype=dtype)
    source = provenance.verified(folder, None if adapter is None else Path(adapter))
    if config.vision is None:
        raise hf.CheckpointError(f"{folder / 'config.json'}: the model reads text alone")
    config = replace(config, product_dtype=jnp.dtype(dtype).name)
    policy = policy_of(platform, weights.text.layers, config.product_dtype)
    weights = policy.laid_out(weights, consume=True)
    tokenizer, processor = load_inputs(folder, config, max_image_tokens)
    path, text = folder / DRAFT_HEADS_FILE, config.text
    heads = load_heads(path, text.hidden_size, text.vocab_size) if path.is_file() else None
    instructed = is_instructed(folder)
    turned = turning.reads_head(channel_indices(schema))
    framer = load_framer(folder, config, weights, processor, turned)
    return Model(
        config,
        weights,
        tokenizer,
        processor,
        heads,
        schema,
        instructed=instructed,
        provenance=source,
        framer=(lambda: framer) if framer else borrowed_framer,
        framed=framer is not None,
        reliability=None if adapter else reliability.load(folder, lambda: source.weights),
        calibration=None if adapter else calibration.load(folder, lambda: source.weights),
    )


def load_framer(
    folder: Path,
    config: Config,
    weights: Weights,
    processor: ImageProcessor,
    turned: bool = True,
) -> Framer | None:
    """What finds and frames faces for the model of a directory, with its own tower.

    Args:
      turned: whether squares are turned as heads are, which the model's schema must be able to
        put back.

    Returns:
      None where the directory has no finder, or no read-out of the landmarks of `face.landmarks`.

    Raises:
      CheckpointError: a file cannot be read, or is of another model.
    """
    if not all((folder / name).is_file() for name in (finder.FILE, readout.FILE)):
        return None
    head = readout.load(folder / readout.FILE)
    if readout.landmarks_of(head) != COUNT:
        return None
    if head.queries.shape[-1] != config.vision.out_hidden_size:
        found = f"of width {head.queries.shape[-1]}, expected {config.vision.out_hidden_size}"
        raise hf.CheckpointError(found, path=folder / readout.FILE, field=".queries")
    landmarks = Landmarks(config, weights.vision, head, processor)
    return Framer(finder.load(folder / finder.FILE), landmarks, turned, landmarks.side)


def borrowed_framer() -> Framer:
    """Frames faces for models that were not trained on framed faces, in upright squares, by the
    built-in model's files."""
    config, weights = hf.load(BUILTIN)
    own = load_framer(BUILTIN, config, weights, ImageProcessor.load(BUILTIN))
    made_with = provenance.verified(BUILTIN)
    source = f"{made_with.weights} {made_with.settings}"
    if own is None:
        return Framer(finder.find, turned=False, source=source)
    return Framer(own.find, own.landmarks, turned=False, source=source)


def is_instructed(directory: str | os.PathLike | None = None) -> bool:
    """Whether the model of a directory was tuned on conversations, as Qwen's are.

    One that brings a SentencePiece tokenizer was trained on its own two prompts alone; a
    `tokenizer.json` beside it is for transformers.
    """
    folder = BUILTIN if directory is None else Path(directory)
    return not (folder / tokenizers.SentencePieceTokenizer.file).is_file()


def load_schema(directory: str | os.PathLike | None = None) -> Schema:
    """The schema of a model directory, by default the built-in one; loads nothing else.

    Raises:
      SchemaFileError: `schema.json` holds what is no schema of channels; names the field.
      CheckpointError: the directory holds no model.
    """
    folder = BUILTIN if directory is None else Path(directory)
    if not (folder / "config.json").is_file():
        raise hf.CheckpointError(f"{folder / 'config.json'}: no such file; a model has one")
    return read_channel_schema(folder, paragraphs=is_instructed(folder))


def load_inputs(
    folder: Path, config: Config, max_image_tokens: int = MAX_IMAGE_TOKENS
) -> tuple[Tokenizer, ImageProcessor]:
    """What makes a model's inputs: the tokenizer and the image processor of its directory.

    Raises:
      CheckpointError, TokenizerError, ProcessorError: a file is missing, cannot be read, or is of
        another model.
    """
    tokenizer = tokenizers.load(folder)
    if len(tokenizer) > config.text.vocab_size:
        raise hf.CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, vocab_size in config.json is "
            f"{config.text.vocab_size}"
        )
    image = tokenizer.symbol(IMAGE)
    if image != config.image_token_id:
        raise hf.CheckpointError(
            f"{folder}: the tokenizer has {IMAGE} as {image}, image_token_id in config.json is "
            f"{config.image_token_id}"
        )
    side = config.vision.patch_size * config.vision.spatial_merge_size
    processor = ImageProcessor.load(folder, max_pixels=max_image_tokens * side**2)
    processor.check(config.vision)
    return tokenizer, processor


def save(
    directory: str | os.PathLike,
    config: Config,
    weights: Weights,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    dtype: DTypeLike = np.float32,
    schema: Schema | None = None,
) -> None:
    """Writes a model directory that `load` reads, and transformers too, with checksums.

    Args:
      dtype: of the weights.
      schema: None means all 61 channels.
    """
    folder = Path(directory)
    hf.save(folder, config, weights, dtype)
    tokenizer.save(folder)
    if tokenizer.sentencepiece is not None:
        tokenizer_json.export(tokenizer.sentencepiece, folder)
    files.write_json(folder / PROCESSOR_FILE, processor.as_dict())
    write_schema(folder, schema or channel_schema(paragraphs=is_instructed(folder)))
    checksums.seal(folder)


def compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second run starts at once.

    They are in the folder of JAX_COMPILATION_CACHE_DIR, else in the user's cache, in a folder that
    only the user can write, since programs are machine code. JAX names a program by its
    operations, versions and flags, but not by the kind of CPU, on which it may not run: home
    folders are shared by machines, so each kind has a folder of its own.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(home, "sf_jax", f"compiled-{_cpu_kind()}")
        with contextlib.suppress(OSError):  # jax then reports that it cannot write there
            os.makedirs(folder, mode=0o700, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _cpu_kind(listed: Path = Path("/proc/cpuinfo")) -> str:
    """Eight digits of a hash of the instructions that the CPU has."""
    kind = f"{platform.machine()} {platform.processor()}{cpu_instructions(listed)}"
    return hashlib.blake2b(kind.encode(), digest_size=4).hexdigest()
