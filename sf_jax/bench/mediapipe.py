"""MediaPipe Face Landmarker in a Python of its own, asked image by image."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float32, UInt8

from sf_jax.bench import mediapipe_side
from sf_jax.cli.arguments import UsageError
from sf_jax.face.channels import BLENDSHAPES, NAMES, UnknownChannel, lookup

SCRIPT = Path(str(mediapipe_side.__file__)).parent / "faces_mediapipe.py"
LACKS = ("TongueOut",)
HAS = [i for i in range(BLENDSHAPES.stop) if NAMES[i] not in LACKS]  # 51 of the 52 blendshapes


@dataclass(frozen=True)
class Answer:
    """What it finds in an image.

    Attributes:
      scores: of the 61 channels in canonical order, 0 of those that it does not score; None where
        it finds no face.
      milliseconds: of the image, without the transfer between the processes.
    """

    scores: Float32[np.ndarray, "61"] | None
    milliseconds: float


class MediaPipe:
    """The process, from `with` to its end.

    Args:
      python: of an environment with mediapipe; task: face_landmarker.task.
      mode: "video" follows the face from frame to frame.
    """

    def __init__(self, python: str, task: Path, mode: Literal["image", "video"] = "image"):
        if not task.is_file():
            raise UsageError("no such file", path=task)
        self._python = python
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        command = [python, str(SCRIPT), str(task), mode]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors)
        except OSError as error:
            raise UsageError(f"--mediapipe-python {python}: {error.strerror}") from error
        try:
            self.version: str = self._line()["version"]
        except UsageError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Answer:
        """What it finds in an image.

        Raises:
          UsageError: it has ended; with the last line of what it printed.
        """
        shape = {"height": image.shape[0], "width": image.shape[1]}
        given = self._process.stdin
        assert given is not None
        try:
            given.write(json.dumps(shape).encode() + b"\n" + image.tobytes())
            given.flush()
        except OSError:  # it ended: reading its answer says how
            pass
        found = self._line()
        scores = None if found["scores"] is None else as_channels(found["scores"])
        return Answer(scores, float(found["milliseconds"]))

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else f"exit code {self._process.returncode}"
            raise UsageError(f"--mediapipe-python {self._python}: {last}")
        return dict(json.loads(line))


def as_channels(scores: dict[str, float]) -> Float32[np.ndarray, "61"]:
    """Scores by name as channels in canonical order; 0 of those without a score."""
    out = np.zeros(len(NAMES), np.float32)
    for name, score in scores.items():
        try:
            out[lookup(name).index] = score
        except UnknownChannel:  # "_neutral"
            continue
    return out
