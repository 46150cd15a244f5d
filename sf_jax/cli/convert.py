"""Checkpoints in and out, adapters merged, and logits compared with PyTorch's.

    sf-jax convert import  HF_DIR OUT            Hugging Face → Orbax, to train from on any mesh
    sf-jax convert export  DIR OUT               the way back
    sf-jax convert merge   HF_DIR ADAPTER OUT    base and LoRA adapter → one checkpoint
    sf-jax convert verify  HF_DIR --reference FILE.npz [--adapter ADAPTER]

An imported directory holds `config.json`, the tokenizer's and processor's files, `stored.json`
(types and shapes), `weights/`, an Orbax tree, and `sf_jax_checksums.json`. What these
commands write has checksums, and what they read is verified where it has them.
"""

import argparse
import sys
from pathlib import Path

from sf_jax.cli.arguments import Parser, number

COMMANDS = {
    "import": "Hugging Face directory → Orbax weights",
    "export": "imported directory → Hugging Face directory",
    "merge": "base and LoRA adapter → one Hugging Face directory",
    "verify": "logits against a reference dumped from PyTorch",
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax convert",
        description=__doc__,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("source", type=Path, metavar="DIR", help="model directory to read")
        if name == "verify":
            _verify_arguments(command)
            continue
        if name == "merge":
            command.add_argument(
                "adapter", type=Path, metavar="ADAPTER", help="LoRA adapter in PEFT's layout"
            )
        command.add_argument(
            "out", type=Path, metavar="OUT", help="directory to write, which may not exist"
        )
        command.add_argument(
            "--dtype",
            choices=("float32", "bfloat16", "float16"),
            help="of the weights written (default: each tensor's own)",
        )
    return parser


def _verify_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--reference",
        type=Path,
        required=True,
        metavar="FILE.npz",
        help="input_ids, logits and, where used, attention_mask, pixel_values, image_grid_thw",
    )
    add("--adapter", type=Path, help="LoRA adapter in PEFT's layout")
    add(
        "--limit",
        type=number(0, True, "a positive number"),
        help="share of the largest logit (default: 1e-4, bfloat16: 2e-2)",
    )
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")


def _verify(options: argparse.Namespace) -> int:
    """Reports how far our logits are from a reference's, and where they first differ."""
    from sf_jax.convert import verify

    limit = options.limit or verify.LIMITS[options.dtype]
    found = verify.verify(options.source, options.reference, options.adapter, options.dtype, limit)
    for row, report in enumerate(found):
        print(
            f"row {row}: {report.positions} positions, largest difference {report.worst:.1e} of "
            f"the largest logit, at position {report.worst_at}; same likeliest token at "
            f"{report.same_top}"
        )
        if report.differs_at is not None:
            token = f"id {report.token}" + (", an image token" if report.image else "")
            print(f"  first differs from the reference at position {report.differs_at} ({token})")
    agree = all(report.differs_at is None for report in found)
    worst = max(report.worst for report in found)
    print(f"{'agrees' if agree else 'DIFFERS'}: {worst:.1e}, limit {limit:.0e}, {options.dtype}")
    return 0 if agree else 1


def main(argv: list[str]) -> int:
    """Runs the command; 1 if a verification finds a difference."""
    options = build_parser().parse_args(argv)
    if options.command == "verify":
        return _verify(options)
    import jax.numpy as jnp

    from sf_jax.convert import checksums, directories

    dtype = jnp.dtype(options.dtype) if options.dtype else None
    source, out = options.source, options.out
    if options.command == "export" and not (source / checksums.FILE).is_file():
        print(
            f"{source}: has no {checksums.FILE} and cannot be verified; imported before checksums "
            "were written",
            file=sys.stderr,
        )
    if options.command == "merge":
        size = directories.merge_adapter(source, options.adapter, out, dtype)
    elif options.command == "import":
        size = directories.import_checkpoint(source, out, dtype)
    else:
        size = directories.export_checkpoint(source, out, dtype)
    print(f"{size:,} numbers in {out}/")
    return 0
