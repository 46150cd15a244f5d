"""The dataset card: what a folder of records holds, for people and for dataset hubs."""

from collections import Counter
from pathlib import Path

from data_pipelines.manifest import NAME, Manifest
from sf_jax.media import files

CARD = "README.md"
MARK = "<!-- written by sf-jax data pipeline -->"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

FIELDS = """\
| field | |
|---|---|
| `image` | JPEG, full colour resolution |
| `coefficients` | float32 [61]: 52 ARKit blendshapes in [0, 1], 9 head and eye angles in rad, \
in the order of Live Link Face's CSV; 0 where not known |
| `known` | bool [61]: the channels that the image can show |
| `rationale` | expression, movements, emotion and symmetry in words; empty where there is none |
| `landmarks` | float32 [70, 2], shares of width and height |
| `source`, `style`, `identity` | what made the image, and who it shows |
| `parts`, `dense` | a coarse map of materials, and whether it is there |
| `seed` | number of the record: seed × 10,000,000 + index, evaluation from 1,000,000 on |"""


def card(manifest: Manifest) -> str:
    """The card in Markdown, with the header that dataset hubs read."""
    total = sum(split.records for split in manifest.header.splits.values())
    size = next((name for most, name in SIZES if total < most), "n>1M")
    lines = [
        "---",
        "pretty_name: Rendered faces with ARKit coefficients and rationales",
        "task_categories: [image-to-text]",
        "language: [en]",
        f"size_categories: [{size}]",
        "---",
        MARK,
        "# Rendered faces with ARKit coefficients and rationales",
        "",
        "Images of rendered and drawn faces, each with the exact coefficients that it was made of "
        "and a description in words. Nobody in them exists, unless skins of photographs are among "
        "the sources: these show the people of the photographs.",
        "",
        "| split | records | files | people | with rationale | rationale refused |",
        "|---|---|---|---|---|---|",
        *_splits(manifest),
        "",
        *_sources(manifest),
        "",
        FIELDS,
        "",
        "How it was made: each record is drawn from its number and the seed. The rationale is "
        "written from the coefficients by rules, and refused where it contradicts them: a "
        "movement at another level, a clear movement not mentioned, an emotion that the "
        "coefficients do not support. No person is in two splits, which was checked over all "
        "records.",
        "",
        "Limits: labels are those of a renderer, not of people; expressions are drawn from a "
        "sampler, so their frequencies are not those of life. Styles and identities of the "
        "evaluation split are in no training image.",
        "",
        f"Files are ArrayRecord; `{NAME}` has their checksums. `sf-jax data verify FOLDER` "
        "compares them, `sf-jax data build --records FOLDER` makes a TensorFlow dataset of them.",
    ]
    return "\n".join(lines) + "\n"


def write_card(folder: Path, manifest: Manifest) -> None:
    """Writes the card, unless the folder has one that somebody else wrote."""
    path = folder / CARD
    if not path.exists() or MARK in path.read_text(encoding="utf-8", errors="replace"):
        files.write_text(path, card(manifest))


def _splits(manifest: Manifest) -> list[str]:
    rows = []
    for name, split in manifest.header.splits.items():
        members = [shard for shard in manifest.shards if shard.split == name]
        rationales = sum(shard.rationales for shard in members)
        rejected = sum(shard.rejected for shard in members)
        people = "" if split.people is None else f"{split.people:,}"
        counts = f"{split.records:,} | {split.files:,} | {people} | {rationales:,} | {rejected:,}"
        rows.append(f"| {name} | {counts} |")
    return rows


def _sources(manifest: Manifest) -> list[str]:
    """A table of records by source."""
    found: dict[str, Counter[str]] = {name: Counter() for name in manifest.header.splits}
    for shard in manifest.shards:
        found[shard.split].update(shard.sources)
    names = sorted({name for counts in found.values() for name in counts})
    head = ["source", *(f"{split} records" for split in found)]
    rows = [
        [name or "not noted", *(f"{found[split][name]:,}" for split in found)] for name in names
    ]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
