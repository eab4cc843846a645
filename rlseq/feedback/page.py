"""Questions in the browser: a page of this machine alone, which loads nothing from elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

from rlseq.compare.report import template
from rlseq.feedback.labels import Answer, LabelFile

LARGEST_REQUEST = 10_000  # bytes of a request
THIS_MACHINE = "127.0.0.1"
SECONDS = 30  # for which an open connection may say nothing


def label_page(file: LabelFile, best: int | None, title: Sequence[str]) -> str:
    """Return the page as HTML, with all questions and the answers so far.

    Args:
        file: has questions and answers.
        best: the best score; None where pairs are compared.
        title: the names of the runs.
    """
    content = {
        "questions": [{"source": q.source, "texts": q.texts} for q in file.questions],
        "answers": {str(place): answer for place, answer in file.answers.items()},
        "best": best,
    }
    shown: str = template("label.html", "rlseq.feedback").render(
        content=content, title=" and ".join(title), path=str(file.path)
    )
    return shown


def serve(file: LabelFile, best: int | None, port: int, title: Sequence[str]) -> None:
    """Show the page until all questions are answered and the page says so, or until Ctrl-C.

    Args:
        file: has the questions, and takes the answers.
        best: the best score; None where pairs are compared.
        port: of this machine; a free one if 0.
        title: the names of the runs.
    """
    server = LabelServer(file, best, port, title)
    address = f"http://{THIS_MACHINE}:{server.server_port}/"
    sys.stderr.write(f"rlseq: open {address} to label; Ctrl-C stops, and nothing is lost\n")
    sys.stderr.flush()
    Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        server.finished.wait()
    finally:
        server.shutdown()
        server.server_close()


class LabelServer(ThreadingHTTPServer):
    """A server of the page, which only requests from this machine and from the page itself reach."""

    daemon_threads = True

    def __init__(self, file: LabelFile, best: int | None, port: int, title: Sequence[str]) -> None:
        try:
            super().__init__((THIS_MACHINE, port), LabelRequest)
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be used ({error.strerror}); choose another one, or 0 for a free one"
            ) from error
        self.file, self.best, self.title = file, best, title
        self.finished, self.lock = Event(), Lock()

    def take(self, said: Any) -> None:
        """Take an answer `{"question": n, "answer": …}`, or one back, or `{"finished": true}`."""
        if said == {"finished": True}:
            self.finished.set()
            return
        place, answer = said["question"], said.get("answer")
        if type(place) is not int or not 0 <= place < len(self.file.questions):
            raise ValueError(f"there is no question {place!r:.40}")
        with self.lock:
            if "answer" not in said:
                self.file.take_back(place)
            else:
                self.file.answer(place, checked_answer(answer, self.best))


def checked_answer(answer: Any, best: int | None) -> Answer:
    """Return an answer that the page sent, or refuse it."""
    allowed = (0, 1, None) if best is None else tuple(range(1, best + 1))
    if isinstance(answer, bool) or answer not in allowed:
        raise ValueError(f"the answer must be one of {allowed}, got {answer!r:.40}")
    found: Answer = answer
    return found


class LabelRequest(BaseHTTPRequestHandler):
    """A request of the page: the page itself, or an answer."""

    server: LabelServer
    timeout = SECONDS

    def do_GET(self) -> None:
        """Answer with the page."""
        if not self._is_own():
            return
        if self.path != "/":
            self._reply(HTTPStatus.NOT_FOUND, "there is only the page /")
            return
        with self.server.lock:
            page = label_page(self.server.file, self.server.best, self.server.title)
        self._reply(HTTPStatus.OK, page, "text/html")

    def do_POST(self) -> None:
        """Write an answer to the file before the page hears that it was taken."""
        if not self._is_own():
            return
        try:
            length = int(self.headers.get("Content-Length", 0))
            if not 0 < length <= LARGEST_REQUEST or self.headers.get("Content-Type") != "application/json":
                raise ValueError("expected a short JSON object")
            self.server.take(json.loads(self.rfile.read(length)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._reply(HTTPStatus.BAD_REQUEST, f"{error}")
        except OSError as error:
            self._reply(HTTPStatus.INSUFFICIENT_STORAGE, f"{self.server.file.path}: {error.strerror}")
        else:
            self._reply(HTTPStatus.OK, "{}", "application/json")

    def _is_own(self) -> bool:
        """Refuse requests under another name of this machine, or from pages of other sites."""
        port = self.server.server_port
        names = (f"{THIS_MACHINE}:{port}", f"localhost:{port}")
        origin = self.headers.get("Origin")
        own = self.headers.get("Host") in names and origin in (None, *(f"http://{name}" for name in names))
        if not own:
            self._reply(HTTPStatus.FORBIDDEN, "this page answers itself alone")
        return own

    def _reply(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about requests."""
