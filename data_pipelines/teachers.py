"""Teachers: what writes rationales of coefficients.

The describer, a local language model, or an endpoint with OpenAI's interface. A teacher answers
tasks as far as it gets; what it has answered before an error is kept.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import xxhash

from data_pipelines import teacher_prompt
from data_pipelines.teacher_prompt import Messages
from sf_jax.face.describe import describe
from sf_jax.media import hashes
from sf_jax.media.errors import DataError

if TYPE_CHECKING:
    import openai

LONGEST = 512  # tokens of a rationale
RETRIES = 4  # of a request that failed on the way or that the server had no time for
LONGEST_WAIT = 30.0  # seconds before a retry
KEY = "OPENAI_API_KEY"  # the environment variable of the key


class TeacherError(DataError):
    """A teacher that cannot be set up or does not answer."""


@dataclass(frozen=True)
class Task:
    """One rationale to write.

    Attributes:
      seed: of the describer's wording.
      coefficients: [61], 0 where not known.
      messages: the same for a language model; a repair has further messages.
    """

    seed: int
    coefficients: np.ndarray
    messages: Messages


@dataclass(frozen=True)
class Answer:
    """What a teacher wrote.

    Attributes:
      task: which of the tasks it answers, from 0.
      cut: whether it had not ended when the cap on its tokens was reached.
    """

    task: int
    text: str
    cut: bool = False


class Teacher(Protocol):
    """Writes rationales.

    Attributes:
      rows: tasks that it likes to get at once.
      counts: requests and retries so far, where there are any.
    """

    @property
    def rows(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...

    def settings(self) -> dict[str, Any]:
        """What its texts depend on, as JSON: the provenance of every record."""

    def write(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """The answer to each task, as they come.

        Raises:
          TeacherError: it cannot go on; answers before are good.
        """


def prompt_hash() -> str:
    """Which prompt was in use, the wording of a repair included."""
    whole = repr(teacher_prompt.repair(teacher_prompt.examples(), "", ())).encode()
    return f"{hashes.NAME}:{xxhash.xxh3_128_hexdigest(whole)}"


@dataclass
class Describer:
    """The rule-based describer of `sf_jax/face/describe.py`."""

    rows: int = 256
    counts: dict[str, int] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        return {"teacher": "describer"}

    def write(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        for number, task in enumerate(tasks):
            yield Answer(number, describe(task.coefficients, task.seed).text)


class LocalModel:
    """A frozen Qwen3 or Qwen3-VL directory, through this project's text model and decoder."""

    def __init__(
        self, directory: Path, rows: int = 8, cap: int = LONGEST, dtype: str | None = None
    ):
        import jax

        from sf_jax.convert import hf
        from sf_jax.decode.text import Writer
        from sf_jax.reader import provenance
        from sf_jax.sequence import tokenizer as tokenizers

        if dtype is None:
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        config, weights = hf.load(directory, dtype=dtype)
        tokenizer = tokenizers.load(directory)
        if tokenizer.sentencepiece is not None:
            problem = (
                "reads its own two prompts alone; a teacher is an instruction-tuned Qwen model"
            )
            raise TeacherError(problem, path=directory)
        self.rows, self.counts = rows, dict[str, int]()
        self._name, self._source = directory.name, provenance.verified(directory)
        self._thinks = len(tokenizer.encode("<think>")) == 1
        self._writer = Writer(config, weights, tokenizer, rows=rows, cap=cap)
        self._writer.begin_with(self._text(teacher_prompt.examples(), answer=False))
        self._cap = cap

    def settings(self) -> dict[str, Any]:
        return {
            "teacher": "model",
            "model": self._name,
            "weights": self._source.weights,
            "prompt": prompt_hash(),
            "tokens": self._cap,
        }

    def _text(self, messages: Messages, answer: bool = True) -> str:
        from sf_jax.sequence.chat import chat_text

        # An empty thought is how Qwen3's models of both modes are asked for the answer alone.
        thought = "<think>\n\n</think>\n\n" if self._thinks and answer else ""
        return chat_text(messages, answer=answer) + thought

    def write(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        for start in range(0, len(tasks), self.rows):
            texts = [self._text(task.messages) for task in tasks[start : start + self.rows]]
            for number, (text, ended) in enumerate(self._writer.write(texts), start):
                yield Answer(number, text.strip(), cut=not ended)


class _Garbled(Exception):
    """A server's answer that is no JSON of the interface."""


class Endpoint:
    """A server with OpenAI's interface, asked through the `openai` client.

    The key is read from the environment and goes nowhere but to the server.

    Args:
      url: of the interface, such as http://localhost:8000/v1.
      most: requests at most, retries included.
      parallel: requests at once.
      wait: pauses for so many seconds; for tests.

    Raises:
      TeacherError: the package or the key is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        most: int,
        parallel: int = 4,
        key_variable: str = KEY,
        wait: Callable[[float], None] = time.sleep,
    ):
        try:
            import openai
        except ImportError as error:
            problem = "asking an endpoint needs the package openai: pip install sf_jax[teacher]"
            raise TeacherError(problem) from error
        key = os.environ.get(key_variable, "")
        if not key:
            problem = f"the environment has no {key_variable}; set it to the key of {url}, or to "
            raise TeacherError(problem + "any word for a server that asks for none")
        self._client = openai.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=120)
        self._url, self._model, self._most, self._wait = url, model, most, wait
        self._counting = threading.Lock()
        self.rows, self.counts = parallel, {"requests": 0, "retries": 0}

    def settings(self) -> dict[str, Any]:
        return {
            "teacher": "endpoint",
            "url": self._url,
            "model": self._model,
            "prompt": prompt_hash(),
            "tokens": LONGEST,
        }

    def write(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Answers as they arrive; an error comes after those that were under way beside it."""
        failed: BaseException | None = None
        with ThreadPoolExecutor(self.rows) as pool:
            asked = [pool.submit(self._answer, number, task) for number, task in enumerate(tasks)]
            try:
                for done in as_completed(asked):
                    if done.cancelled():
                        continue
                    error = done.exception()
                    if error is None:
                        yield done.result()
                        continue
                    failed = failed or error
                    for one in asked:
                        one.cancel()
            finally:
                for one in asked:
                    one.cancel()
        if failed is not None:
            raise failed

    def _answer(self, number: int, task: Task) -> Answer:
        import openai

        for attempt in range(RETRIES + 1):
            self._count(attempt > 0)
            try:
                return Answer(number, *self._ask(task.messages))
            except (
                openai.APIConnectionError,
                openai.RateLimitError,
                openai.InternalServerError,
            ) as error:
                if attempt == RETRIES:
                    problem = f"no answer after {attempt + 1} attempts: {_reason(error)}"
                    raise TeacherError(problem, path=self._url) from None
                self._wait(_pause(error, attempt))
            except openai.APIError as error:
                raise TeacherError(_reason(error), path=self._url) from None
            except _Garbled:
                if attempt == RETRIES:
                    problem = f"{attempt + 1} answers were not JSON in the format of OpenAI's"
                    raise TeacherError(f"{problem} interface", path=self._url) from None
                self._wait(2.0**attempt)
        raise AssertionError("unreachable")

    def _ask(self, messages: Messages) -> tuple[str, bool]:
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=cast(Any, messages),
                temperature=0,
                max_tokens=LONGEST,
            )
        except ValueError as error:  # of the client's JSON parser
            raise _Garbled from error
        # The client checks nothing, and gives a page of another kind as a text.
        if not isinstance(getattr(answer, "choices", None), list):
            raise _Garbled
        if not answer.choices:
            return "", False
        choice = answer.choices[0]
        return (choice.message.content or "").strip(), choice.finish_reason == "length"

    def _count(self, retry: bool) -> None:
        """Counts a request that is about to be sent.

        Raises:
          TeacherError: that would be one too many.
        """
        with self._counting:
            if self.counts["requests"] >= self._most:
                problem = f"stopped after {self._most} requests, the most allowed; run the command "
                raise TeacherError(problem + "again to go on from here")
            self.counts["requests"] += 1
            self.counts["retries"] += retry


def _reason(error: "openai.APIError") -> str:
    """What went wrong, without the server's own words, which may hold the key."""
    status = getattr(error, "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def _pause(error: "openai.APIError", attempt: int) -> float:
    """Seconds before a retry: as the server asks, else doubling from one."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        asked = 2.0**attempt
    return min(max(asked, 0.0), LONGEST_WAIT)
