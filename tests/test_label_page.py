"""The page of labels in a browser, from its start to a trained reward model; and what its server refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import rlseq
from rlseq.feedback import label, train_reward_model
from rlseq.feedback.labels import LabelFile, Question
from rlseq.feedback.page import LabelServer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")
SEVERAL = 12  # questions


class Browser:
    """A browser without a window, which is told what to do through a pipe (Chrome's DevTools protocol)."""

    def __init__(self, folder: Path) -> None:
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        program = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", program, str(BROWSER), *flags, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.number, self.rest, self.session = 0, b"", ""
        page = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]

    def ask(self, method: str, **what: Any) -> Any:
        """Send a command, and return its result."""
        self.number += 1
        said = {"id": self.number, "method": method, "params": what}
        os.write(
            self.write, json.dumps(said | ({"sessionId": self.session} if self.session else {})).encode()
        )
        os.write(self.write, b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.read, 65536)
            line, _, self.rest = self.rest.partition(b"\0")
            found = json.loads(line)
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def value(self, script: str) -> Any:
        """Return the value of a script in the page, waiting for a promise."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a script in the page is true."""
        self.value(
            "new Promise((ready) => { const look = () => "
            f"({script}) ? ready() : setTimeout(look, 10); look(); }})"
        )

    def press(self, key: str, text: str = "") -> None:
        """Press a key, and wait until the page shows that it was heard."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, **({"text": text} if text else {}))
        self.until("document.getElementById('question').getAttribute('aria-busy') !== 'true'")

    def open(self, address: str) -> None:
        """Load a page."""
        self.ask("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


@contextmanager
def labelling(run: Path, out: Path, *more: str) -> Iterator[tuple[Any, str]]:
    """The command in a process of its own, and the address that it names."""
    command = [sys.executable, "-m", "rlseq", "label", str(run), "--out", str(out), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(word for line in process.stderr for word in line.split() if word.startswith("http"))
        try:
            yield process, address
        finally:
            process.kill()


def is_open(port: int) -> bool:
    """Whether a server listens."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@needs_browser
def test_from_the_start_of_the_page_to_a_trained_reward_model(tmp_path: Path, browser: Browser) -> None:
    """A person who likes the shorter text presses keys; Ctrl-C comes in between, and nothing is lost."""
    env = rlseq.make("rlseq/Copy-v0", length=4, vocab_size=5, num_envs=8)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), env, 1, out=tmp_path / "run", quiet=True)
    out, port = tmp_path / "labels.jsonl", free_port()
    with labelling(tmp_path / "run", out, "--number", str(SEVERAL)) as (process, address):
        browser.open(address)
        for width, dark in ((390, "dark"), (1280, "light")):
            browser.ask(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=800,
                deviceScaleFactor=1,
                mobile=False,
            )
            browser.ask(
                "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": dark}]
            )
            assert not browser.value("document.documentElement.scrollWidth > innerWidth")
            paper = browser.value("getComputedStyle(document.body).backgroundColor")
            assert paper == {"dark": "rgb(20, 23, 28)", "light": "rgb(251, 250, 247)"}[dark]
        assert browser.value("performance.getEntriesByType('resource').length") == 0
        browser.press("0", "0")
        browser.press("2", "2")
        browser.press("u", "u")
        browser.press("1", "1")
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert [row["better"] for row in rows] == [None, 0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        browser.press("1", "1")
        assert "was not saved" in browser.value("document.getElementById('failure').textContent")
    assert [json.loads(line) for line in out.read_text("utf-8").splitlines()] == rows

    again = Thread(
        target=label, args=(tmp_path / "run",), kwargs={"out": str(out), "number": SEVERAL, "port": port}
    )
    again.start()
    while not is_open(port):
        sleep(0.02)
    browser.open(f"http://127.0.0.1:{port}/")
    assert browser.value("document.getElementById('count').textContent") == f"2 of {SEVERAL} answered"
    while browser.value("document.getElementById('done').hidden"):
        texts = browser.value("[...document.querySelectorAll('#texts button')].map((b) => b.textContent)")
        browser.press("ArrowLeft" if len(texts[0]) < len(texts[1]) else "ArrowRight")
    browser.press("Enter", "\r")
    browser.until("document.getElementById('done').textContent.includes('can be closed')")
    again.join(60)
    assert not again.is_alive()
    assert len(out.read_text("utf-8").splitlines()) == SEVERAL

    judge = tmp_path / "judge"
    sizes = {"hidden": 4, "embedding": 4}
    report = train_reward_model(out, out=str(judge), sizes=sizes, epochs=2, folds=3).report
    assert report["number"] == SEVERAL
    trained = rlseq.make("rlseq/Copy-v0", length=4, vocab_size=5, num_envs=8)
    agent = rlseq.make_agent("reinforce", policy)
    reward = rlseq.feedback.load_reward(judge, trained)
    assert agent.update(agent.collect(trained.replace(reward={"judge": reward})))["loss"] is not None


def test_the_server_refuses_what_is_not_from_its_page(tmp_path: Path) -> None:
    file = LabelFile(tmp_path / "labels.jsonl", [Question("</script><b>", ("b", "c"))])
    server = LabelServer(file, None, 0, ["run"])
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"

    def reply(data: bytes | None, **headers: str) -> int:
        kind = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): v for name, v in headers.items()},
        }
        try:
            with urlopen(Request(address, data, kind)) as found:
                assert data or b"</script><b>" not in found.read()
                return int(found.status)
        except HTTPError as error:
            return int(error.code)

    with pytest.raises(ValueError, match=f"port {server.server_port} cannot be used"):
        LabelServer(file, None, server.server_port, ["run"])
    answer = b'{"question": 0, "answer": 1}'
    assert reply(None) == 200
    assert reply(answer, Origin="http://example.org") == 403
    assert reply(answer, Host="example.org") == 403
    assert reply(answer, Content_Type="text/plain") == 400
    assert reply(b'{"question": 1, "answer": 1}') == 400
    assert reply(b'{"question": 0, "answer": 2}') == 400
    assert reply(b'{"question": 0, "answer": true}') == 400
    assert reply(b"[]") == 400
    assert file.answers == {}
    assert reply(answer, Origin=address.rstrip("/")) == 200
    assert file.answers == {0: 1}
    assert reply(b'{"question": 0}') == 200
    assert file.answers == {}
    server.shutdown()
    server.server_close()
    file.close()
