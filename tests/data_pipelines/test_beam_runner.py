"""Apache Beam makes the files that processes of one machine make.

Beam has an environment of its own (`constraints-beam.txt`), so this is skipped in that of the other
tests; `PYTHON -m pytest tests/data_pipelines/test_beam_runner.py` runs it there.
"""

from pathlib import Path

import pytest

from data_pipelines import dataset, manifest, rendering
from data_pipelines.dataset import Plan
from sf_jax.media.errors import DataError
from tests.data_pipelines.tiny_faces import TinyFaces

ROOT = Path(__file__).parents[2]
OLDER = {"pillow", "protobuf"}  # in Beam's set
LACKING = {"crowd-kit", "openai", "peft", "torch", "torchvision", "transformers", "trl"}


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def test_the_set_with_beam_is_the_tested_set_but_for_what_beam_wants_older() -> None:
    ours, beams = pins("requirements.txt"), pins("constraints-beam.txt")
    assert beams.keys() == ours.keys() - LACKING | {"apache-beam"}
    differing = {name for name in beams.keys() & ours.keys() if beams[name] != ours[name]}
    assert differing == OLDER


def test_without_beam_it_is_named_what_to_install() -> None:
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match=r"not installed: pip install .* -c constraints-beam"):
            import data_pipelines.beam_runner  # noqa: F401


@pytest.mark.parametrize("workers", [1, 2])
def test_beam_makes_the_same_files(
    tmp_path: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("apache_beam", reason="needs the extra 'beam'")
    from data_pipelines import beam_runner

    counts = {"train": 23, "evaluation": 9}
    monkeypatch.setattr(rendering, "in_processes", lambda make, items, workers: map(make, items))
    dataset.make(Plan(tmp_path / "local", counts, 5), TinyFaces(), 1)
    options = [f"--direct_num_workers={workers}"]
    if workers > 1:
        options.append("--direct_running_mode=multi_processing")
    plan = Plan(tmp_path / "beam", counts, 5)
    found, kept = beam_runner.make(plan, TinyFaces(), "DirectRunner", options)
    assert found == manifest.read(tmp_path / "local") and kept == 0
    assert "7/7" in capsys.readouterr().err  # files
    folders = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("local", "beam")
    ]
    assert folders[0] == folders[1]
    (plan.out / "train-00001.array_record").unlink()
    (plan.out / manifest.NAME).unlink()
    _, kept = beam_runner.make(plan, TinyFaces(), "DirectRunner", options)
    assert kept == 27
    assert {path.name: path.read_bytes() for path in plan.out.iterdir()} == folders[0]
