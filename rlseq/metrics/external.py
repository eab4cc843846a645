"""METEOR and SPICE by their reference implementations in Java (pycocoevalcap), supervised.

For evaluation. Every answer has a time limit, processes end with their owner, and what is missing
is named by `unavailable` before an hour of training instead of after. METEOR may serve as a reward,
sentence batches being spread over a few processes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.metrics.algebra import Composable
from rlseq.metrics.base import SIGNATURE_VERSION, on_host, scored
from rlseq.metrics.encode import References, check_count, check_references
from rlseq.types import Context

Detokenize = Callable[[list[int]], str]


class Unavailable(RuntimeError):
    """A metric cannot run on this machine; the message says what is missing and where to get it."""


def unavailable(name: str) -> str | None:
    """Return why "meteor" or "spice" cannot run here, or None if it can."""
    if shutil.which("java") is None:
        return f"{name} needs Java: no `java` on PATH; install a runtime of version 8 or later"
    home = _home()
    if home is None:
        return f"{name} needs pycocoevalcap: pip install pycocoevalcap"
    jar = {"meteor": "meteor-1.5.jar", "spice": "spice-1.0.jar"}[name]
    if not (home / name / jar).exists():
        return f"{name} needs {jar}, which this pycocoevalcap lacks; reinstall it"
    if name == "spice" and not list((home / "spice" / "lib").glob("stanford-corenlp-*-models.jar")):
        return (
            "spice needs Stanford CoreNLP 3.6.0 with its models in pycocoevalcap/spice/lib; "
            "pycocoevalcap downloads them on first use where the network allows it"
        )
    return None


def _home() -> Path | None:
    spec = importlib.util.find_spec("pycocoevalcap")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _require(name: str) -> Path:
    reason = unavailable(name)
    home = _home()
    if reason is not None or home is None:
        raise Unavailable(reason)
    return home / name


class LineProcess:
    """A program that answers every line with lines; one that stops reading or answering is ended."""

    def __init__(self, command: Sequence[str], folder: Path | None, timeout: float) -> None:
        """Start the program; `timeout` in seconds holds for each line sent and for each answer."""
        self.command, self.timeout = list(command), timeout
        self.process = subprocess.Popen(
            self.command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
        )
        self.questions: queue.Queue[str | None] = queue.Queue(maxsize=1)
        self.answers: queue.Queue[str | None] = queue.Queue()
        for work, lines in ((_feed, self.questions), (_drain, self.answers)):
            threading.Thread(target=work, args=(self.process, lines), daemon=True).start()
        self.close = weakref.finalize(self, _stop, self.process, self.questions)

    def send(self, line: str) -> None:
        """Send one line to the program."""
        if not self.close.alive or self.process.poll() is not None:
            raise self._failure("has ended")
        try:
            self.questions.put(line + "\n", timeout=self.timeout)
        except queue.Full:
            raise self._failure(f"took no line within {self.timeout:g} s") from None

    def receive(self) -> str:
        """Return the next line of its answer."""
        try:
            line = self.answers.get(timeout=self.timeout)
        except queue.Empty:
            raise self._failure(f"gave no answer within {self.timeout:g} s") from None
        if line is None:
            raise self._failure("has ended")
        return line.strip()

    def _failure(self, what: str) -> RuntimeError:
        self.close()
        code = self.process.poll()
        return RuntimeError(
            f"`{' '.join(self.command)}` {what} (exit code {code}); the next call starts it anew"
        )


def _feed(process: subprocess.Popen[str], questions: queue.Queue[str | None]) -> None:
    """Write line by line, in a thread, since a write waits for as long as the program does not read."""
    assert process.stdin is not None
    with contextlib.suppress(ValueError, OSError):
        while (line := questions.get()) is not None:
            process.stdin.write(line)
            process.stdin.flush()


def _drain(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
    """Read as fast as the program writes, so that neither side ever waits for the other."""
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        for line in process.stdout:
            answers.put(line)
    answers.put(None)


def _stop(process: subprocess.Popen[str], questions: queue.Queue[str | None]) -> None:
    """End the program, then the thread that writes to it."""
    with contextlib.suppress(OSError, ValueError), process:
        process.kill()
    with contextlib.suppress(queue.Full):
        questions.put_nowait(None)


@dataclass(eq=False)
class _Judge(Composable):
    """The base of METEOR and SPICE: texts as references, and the reward call through texts.

    Args:
        references: `references[i]` is the list of the reference texts of item i.
        detokenize: from token ids to a text, for the reward call.
        eos: the id of EOS, which is not part of the text.
        timeout: seconds for one answer.
    """

    references: References = field(repr=False)
    _: KW_ONLY
    detokenize: Detokenize | None = field(default=None, repr=False)
    eos: int | None = None
    timeout: float = 300.0

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the references, and say what is missing before anything is computed."""
        check_references(self.references)
        self.texts = [[_clean(line) for line in item] for item in self.references]
        self.folder = _require(self.name)

    def judge(self, texts: Sequence[str], rows: Sequence[int]) -> tuple[list[float], float]:
        """Return the score of text k against item rows[k], and of all together."""
        raise NotImplementedError

    def score(self, hypotheses: Sequence[str]) -> Tensor:
        """Return the score of hypothesis i against references[i], [N]."""
        return torch.tensor(self._all(hypotheses)[0])

    def corpus(self, hypotheses: Sequence[str]) -> float:
        """Return the figure that the reference implementation prints."""
        return self._all(hypotheses)[1]

    def _all(self, hypotheses: Sequence[str]) -> tuple[list[float], float]:
        check_count(len(hypotheses), [len(item) for item in self.texts])
        return self.judge([_clean(text) for text in hypotheses], range(len(hypotheses)))

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, [B], by way of texts on the host."""
        if self.detokenize is None:
            raise TypeError(f"{self.name} as a reward needs detokenize=, from token ids to a text")
        return on_host(self._of_texts, tokens, mask, context)

    def _of_texts(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        assert self.detokenize is not None
        ids = scored(tokens, mask, self.eos).tolist()
        texts = [self.detokenize([t for t in row if t >= 0 and t != self.eos]) for row in ids]
        scores = self.judge([_clean(text) for text in texts], context["index"].tolist())[0]
        return torch.tensor(scores)

    def without_first_reference(self, items: Tensor) -> None:
        """Return None: the references are those that it was made with."""

    @property
    def signature(self) -> str:
        """Name and implementation."""
        return f"{self.name}|impl:pycocoevalcap|rlseq:{SIGNATURE_VERSION}"


_LINE_ENDS = re.compile("\r\n|[\r\n]")  # where Java ends a line; all other separators are part of a text


def _clean(line: object) -> str:
    """Return one line without the separator of METEOR's protocol, as pycocoevalcap passes it."""
    if not isinstance(line, str):
        raise TypeError(f"METEOR and SPICE judge texts, got {type(line).__name__}: {line!r:.60}")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"METEOR and SPICE judge texts that can be written as UTF-8, got {line!r:.60} with the lone "
            f"surrogate {line[error.start]!r}; decode the text with errors='replace'"
        ) from None
    return _LINE_ENDS.sub(" ", line.replace("|||", "")).replace("  ", " ")


_METEOR = ["java", "-jar", "-Xmx2G", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]


@dataclass(eq=False)
class METEOR(_Judge):
    """METEOR 1.5 (Denkowski & Lavie 2014), English, 0–1.

    A process that ends, does not answer in time or answers anything but numbers is an error. The error ends
    all processes, since the answers that others still owe belong to this call; the next call starts new ones.

    Args:
        processes: how many Java processes share a batch; each takes about a gigabyte.
    """

    processes: int = 1

    name: ClassVar[str] = "meteor"

    def __post_init__(self) -> None:
        """Start the processes."""
        super().__post_init__()
        self.pool = self._start()

    def _start(self) -> list[LineProcess]:
        return [LineProcess(_METEOR, self.folder, self.timeout) for _ in range(self.processes)]

    def judge(self, texts: Sequence[str], rows: Sequence[int]) -> tuple[list[float], float]:
        """Score a batch, with new processes after a call that failed."""
        if not texts:
            return [], 0.0
        self.pool = self.pool or self._start()
        try:
            return self._judge(texts, rows)
        except BaseException:
            self.close()
            self.pool = []
            raise

    def _judge(self, texts: Sequence[str], rows: Sequence[int]) -> tuple[list[float], float]:
        """Send all sentences before the first answer is read, so that the processes overlap."""
        turns = [self.pool[k % len(self.pool)] for k in range(len(texts))]
        for process, text, row in zip(turns, texts, rows, strict=True):
            process.send(" ||| ".join(["SCORE", *self.texts[row], text]))
        statistics = [process.receive() for process in turns]
        for line in statistics:
            _numbers(line)
        first = self.pool[0]
        first.send(" ||| ".join(["EVAL", *statistics]))
        scores = [_number(first.receive()) for _ in texts]
        return scores, _number(first.receive())

    def close(self) -> None:
        """End the processes now; otherwise they end with this object."""
        for process in self.pool:
            process.close()


def _numbers(line: str) -> list[float]:
    """Return the numbers of an answer of METEOR; anything else is an error that shows the answer."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise RuntimeError(
            f"METEOR should answer with finite numbers, got {line!r:.200}; run its jar by hand to see why, "
            "the next call starts it anew"
        )
    return numbers


def _number(line: str) -> float:
    """Return the one number of an answer."""
    numbers = _numbers(line)
    if len(numbers) != 1:
        raise RuntimeError(f"METEOR should answer EVAL with one number a line, got {line!r:.200}")
    return numbers[0]


@dataclass(eq=False)
class SPICE(_Judge):
    """SPICE (Anderson et al. 2016): F₁ of scene-graph tuples, 0–1; it takes minutes."""

    timeout: float = 3600.0

    name: ClassVar[str] = "spice"

    def judge(self, texts: Sequence[str], rows: Sequence[int]) -> tuple[list[float], float]:
        """Run the program once over files."""
        items = [
            {"image_id": k, "test": text, "refs": self.texts[row]}
            for k, (text, row) in enumerate(zip(texts, rows, strict=True))
        ]
        with tempfile.TemporaryDirectory(prefix="rlseq-spice-") as folder:
            place = Path(folder)
            (place / "in.json").write_text(json.dumps(items), encoding="utf-8")
            options = ["-cache", str(place), "-out", str(place / "out.json"), "-subset", "-silent"]
            command = ["java", "-jar", "-Xmx8G", "spice-1.0.jar", str(place / "in.json"), *options]
            _run(command, self.folder, self.timeout)
            scores = _f_scores(place / "out.json", len(texts))
        return scores, sum(scores) / max(1, len(scores))


def _f_scores(file: Path, count: int) -> list[float]:
    """Return the F₁ of texts 0 … count − 1 from what SPICE wrote."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        by_id = {item["image_id"]: float(item["scores"]["All"]["f"]) for item in found}
        return [by_id[k] for k in range(count)]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise RuntimeError(
            f"SPICE should have written a JSON list with the F-score of each of {count} texts, got "
            f"{type(error).__name__}: {error}; run its jar by hand to see why"
        ) from error


def _run(command: Sequence[str], folder: Path, timeout: float) -> None:
    """Run a program silently; an error shows the end of what it printed."""
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"`{' '.join(command[:4])}` did not finish within {timeout:g} s") from None
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command[:4])}` failed: {done.stderr.strip()[-500:]}")
