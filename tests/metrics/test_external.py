from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rlseq.metrics import METEOR, SPICE, Unavailable, evaluate, unavailable
from rlseq.metrics.external import LineProcess
from rlseq.metrics.treebank import penn_treebank

needs_meteor = pytest.mark.skipif(unavailable("meteor") is not None, reason=str(unavailable("meteor")))
needs_spice = pytest.mark.skipif(unavailable("spice") is not None, reason=str(unavailable("spice")))

REFERENCES = [["a cat sits on the mat", "there is a cat on a mat"], ["a dog runs fast"], ["a man"]]
HYPOTHESES = ["a cat on the mat", "a dog running", ""]


@needs_meteor
def test_meteor_is_pycocoevalcap() -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    theirs = Meteor()
    corpus, sentences = theirs.compute_score(
        dict(enumerate(REFERENCES)), {i: [line] for i, line in enumerate(HYPOTHESES)}
    )
    for pipe in (theirs.meteor_p.stdin, theirs.meteor_p.stdout, theirs.meteor_p.stderr):
        pipe.close()
    words = ["", "a", "cat", "on", "the", "mat"]
    meteor = METEOR(REFERENCES, eos=0, detokenize=lambda ids: " ".join(words[i] for i in ids))
    assert meteor.score(HYPOTHESES).tolist() == pytest.approx(sentences, abs=1e-6)
    assert meteor.corpus(HYPOTHESES) == pytest.approx(corpus, abs=1e-12)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 0], [1, 2, 0, 9, 9, 9]])
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    value = meteor(tokens, mask, {"index": torch.tensor([0, 0])})
    assert value[0].item() == pytest.approx(sentences[0], abs=1e-6)
    assert value[1] < value[0]
    meteor.close()
    assert all(line.process.poll() is not None for line in meteor.pool)


FAKE_METEOR = """
import sys
for line in sys.stdin:
    kind, *rest = line.strip().split(" ||| ")
    if kind == "SCORE":
        print(len(rest), flush=True)
    else:
        print(*rest, sum(map(int, rest)), sep="\\n", flush=True)
"""


def test_a_pool_shares_a_batch_and_keeps_its_order(monkeypatch: Any, tmp_path: Path) -> None:
    """The program is a stand-in that scores by the number of references."""
    monkeypatch.setattr("rlseq.metrics.external._require", lambda name: tmp_path)
    monkeypatch.setattr("rlseq.metrics.external._METEOR", [sys.executable, "-c", FAKE_METEOR])
    meteor = METEOR([["x"] * n for n in (1, 2, 3, 4, 5)], processes=2)
    assert meteor.score(["a"] * 5).tolist() == [2, 3, 4, 5, 6]
    assert meteor.corpus(["a"] * 5) == 20
    assert meteor.score(["a"] * 5).tolist() == [2, 3, 4, 5, 6]
    meteor.close()
    with pytest.raises(RuntimeError, match="has ended"):
        meteor.score(["a"] * 5)


# the same stand-in, but the text "fail" makes it do CODE, unless it has done so before
FAILING_METEOR = """
import os, sys, time
for line in sys.stdin:
    kind, *rest = line.strip().split(" ||| ")
    if rest[-1] == "fail" and not os.path.exists("failed"):
        open("failed", "w").close()
        CODE
    elif kind == "SCORE":
        print(len(rest), flush=True)
    else:
        print(*rest, sum(map(int, rest)), sep="\\n", flush=True)
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("time.sleep(60)", "gave no answer within 3 s"),
        ("sys.exit(3)", "has ended"),
        ("os.close(1); time.sleep(60)", "has ended"),
        ("print('Error: what?', flush=True)", "finite numbers, got 'Error: what.'"),
        ("print('', flush=True)", "finite numbers, got ''"),
        ("print('NaN', flush=True)", "finite numbers, got 'NaN'"),
        ("sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush()", "finite numbers, got"),
    ],
)
def test_a_process_that_fails_is_replaced(code: str, message: str, monkeypatch: Any, tmp_path: Path) -> None:
    """The second process fails, while the first still owes answers, which the next call must not read."""
    program = [sys.executable, "-c", FAILING_METEOR.replace("CODE", code)]
    monkeypatch.setattr("rlseq.metrics.external._require", lambda name: tmp_path)
    monkeypatch.setattr("rlseq.metrics.external._METEOR", program)
    meteor = METEOR([["x"] * n for n in (1, 2, 3, 4, 5)], processes=2, timeout=3.0)
    before, old = time.monotonic(), list(meteor.pool)
    with pytest.raises(RuntimeError, match=message):
        meteor.score(["a", "fail", "a", "a", "a"])
    assert time.monotonic() - before < 20
    assert all(process.process.poll() is not None for process in old)
    meteor.timeout = 60.0
    assert meteor.score(["a", "fail", "a", "a", "a"]).tolist() == [2, 3, 4, 5, 6]
    meteor.close()


def test_an_answer_too_many_numbers_long_is_refused(monkeypatch: Any, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys\nfor line in sys.stdin: print('1 2', flush=True)"]
    monkeypatch.setattr("rlseq.metrics.external._require", lambda name: tmp_path)
    monkeypatch.setattr("rlseq.metrics.external._METEOR", program)
    with pytest.raises(RuntimeError, match="one number a line, got '1 2'"):
        METEOR([["x"]]).score(["a"])


ODD = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
ODD += ["\x00", "\xa0", "\u200b", "|||", "||||", "|", "é", "😀", ""]


@needs_meteor
def test_meteor_reads_any_character() -> None:
    """Line ends are blanks, and every other character is judged as pycocoevalcap has it judged."""
    from pycocoevalcap.meteor.meteor import Meteor

    hypotheses = [f"the cat{mark}here" for mark in ODD] + ODD
    references = [[f"the cat sits{mark}here", "a cat"] for mark in ODD] + [["the cat", mark] for mark in ODD]
    meteor = METEOR(references)
    got = meteor.score(hypotheses).tolist()
    meteor.close()
    blank = [[text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", " ") for text in item] for item in
             [*references, hypotheses]]  # fmt: skip
    plain = [[text.replace("|||", "") for text in item] for item in blank]  # theirs leaves it in references
    theirs = Meteor()
    _, wanted = theirs.compute_score(dict(enumerate(plain[:-1])), {i: [t] for i, t in enumerate(plain[-1])})
    for pipe in (theirs.meteor_p.stdin, theirs.meteor_p.stdout, theirs.meteor_p.stderr):
        pipe.close()
    assert got == pytest.approx(wanted, abs=1e-6)


def test_text_that_is_no_utf8_is_refused(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("rlseq.metrics.external._require", lambda name: tmp_path)
    with pytest.raises(ValueError, match="lone surrogate"):
        SPICE([["a \ud800 b"]])


@needs_spice
def test_spice_runs() -> None:
    assert 0 < SPICE(REFERENCES[:2]).corpus(HYPOTHESES[:2]) <= 1


def test_what_is_missing_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr("rlseq.metrics.external.shutil.which", lambda name: None)
    assert "no `java` on PATH" in str(unavailable("meteor"))
    with pytest.raises(Unavailable, match="needs Java"):
        METEOR(REFERENCES)
    with pytest.warns(UserWarning, match="meteor is skipped: meteor needs Java"):
        report = evaluate(HYPOTHESES, REFERENCES, metrics=["bleu", "meteor"])
    assert "bleu" in report
    assert "meteor" not in report
    assert "Java" in report.skipped["meteor"]


def test_missing_packages_and_models(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("rlseq.metrics.external.shutil.which", lambda name: "java")
    monkeypatch.setattr("rlseq.metrics.external._home", lambda: None)
    assert "pip install pycocoevalcap" in str(unavailable("meteor"))
    monkeypatch.setattr("rlseq.metrics.external._home", lambda: tmp_path)
    assert "meteor-1.5.jar" in str(unavailable("meteor"))
    assert "spice-1.0.jar" in str(unavailable("spice"))
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    (tmp_path / "spice" / "spice-1.0.jar").touch()
    assert "CoreNLP" in str(unavailable("spice"))
    (tmp_path / "spice" / "lib" / "stanford-corenlp-3.6.0-models.jar").touch()
    assert unavailable("spice") is None


def python(code: str, timeout: float = 20.0) -> LineProcess:
    return LineProcess([sys.executable, "-c", code], None, timeout)


def test_a_silent_program_is_ended_in_time() -> None:
    silent = python("import time; time.sleep(60)", timeout=0.3)
    silent.send("anything")
    before = time.monotonic()
    with pytest.raises(RuntimeError, match=r"gave no answer within 0.3 s"):
        silent.receive()
    assert time.monotonic() - before < 10
    assert silent.process.poll() is not None


def test_a_program_that_stops_reading_is_ended_in_time() -> None:
    deaf = python("import time; time.sleep(60)", timeout=0.3)
    before = time.monotonic()
    deaf.send("x" * 1_000_000)  # more than a pipe holds
    deaf.send("waits for its turn")
    with pytest.raises(RuntimeError, match=r"took no line within 0.3 s"):
        deaf.send("has no place to wait")
    assert time.monotonic() - before < 10
    assert deaf.process.poll() is not None


def test_a_program_that_ends_says_so() -> None:
    ended = python("import sys; sys.exit(3)")
    with pytest.raises(RuntimeError, match=r"has ended"):
        ended.receive()
    with pytest.raises(RuntimeError, match=r"has ended"):
        ended.send("anything")


def test_much_can_be_sent_before_anything_is_read() -> None:
    echo = python("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    lines = ["x" * 200 + str(i) for i in range(3000)]
    for line in lines:
        echo.send(line)
    assert [echo.receive() for _ in lines] == lines
    process = echo.process
    del echo
    assert process.poll() is not None  # ends with its owner


FAKE_SPICE = """
import json, sys
items = json.load(open(sys.argv[1]))
out = [{"image_id": i["image_id"], "scores": {"All": {"f": len(i["refs"]) / 10}}} for i in items]
json.dump(out, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


def test_spice_reads_what_its_program_writes(monkeypatch: Any, tmp_path: Path) -> None:
    """The program is a stand-in; files, options, errors and time-outs are real."""
    monkeypatch.setattr("rlseq.metrics.external._require", lambda name: tmp_path)
    script = tmp_path / "fake.py"
    script.write_text(FAKE_SPICE)
    run = subprocess.run

    def instead(command: list[str], **options: Any) -> Any:
        assert command[:4] == ["java", "-jar", "-Xmx8G", "spice-1.0.jar"]
        return run([sys.executable, str(script), *command[4:]], **options)

    monkeypatch.setattr("rlseq.metrics.external.subprocess.run", instead)
    spice = SPICE(REFERENCES)
    assert spice.score(HYPOTHESES).tolist() == pytest.approx([0.2, 0.1, 0.1])
    assert spice.corpus(HYPOTHESES) == pytest.approx(0.4 / 3)
    script.write_text("import sys; sys.exit('no models')")
    with pytest.raises(RuntimeError, match="failed: no models"):
        spice.score(HYPOTHESES)
    script.write_text("import sys; open(sys.argv[sys.argv.index('-out') + 1], 'w').write('[{}]')")
    with pytest.raises(RuntimeError, match="F-score of each of 3 texts, got KeyError: 'image_id'"):
        spice.score(HYPOTHESES)
    script.write_text("")
    with pytest.raises(RuntimeError, match="F-score of each of 3 texts, got FileNotFoundError"):
        spice.score(HYPOTHESES)
    script.write_text("import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match=r"did not finish within 0\.2 s"):
        SPICE(REFERENCES, timeout=0.2).score(HYPOTHESES)


def test_judges_want_texts(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("rlseq.metrics.external._require", lambda name: tmp_path)
    with pytest.raises(TypeError, match="judge texts, got list"):
        SPICE([[[1, 2]], [[3]]])
    with pytest.raises(ValueError, match="1 hypotheses for 3 items"):
        SPICE(REFERENCES).score(["a"])
    tokens = torch.ones(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match="needs detokenize="):
        SPICE(REFERENCES)(tokens, tokens > 0, {"index": torch.tensor([0])})


CAPTIONS = """A man riding a wave on top of a surfboard.
A woman's dog isn't happy, it doesn't like the cats' toys.
Two people can't sit; they've been standing for 3.5 hours (or more)!
"No parking" sign next to a stop-sign on 5th Ave.
I cannot go, we're gonna leave at 10:30 p.m. today...
The U.S. flag -- at half-mast -- in Washington D.C.
A $5 bill & a 50% discount on 1,000 items
A cat/dog with a t-shirt that says 'I love NY'
Rock'n'roll by a 3-year-old at 12:45PM, really?!"""


@needs_meteor
def test_the_treebank_tokeniser_is_stanfords() -> None:
    """Line by line what Java prints, punctuation dropped as pycocoevalcap drops it."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    program = "edu.stanford.nlp.process.PTBTokenizer"
    command = ["java", "-cp", str(jar), program, "-preserveLines", "-lowerCase"]
    done = subprocess.run(command, input=CAPTIONS, capture_output=True, text=True, check=True)
    drop = set(ptbtokenizer.PUNCTUATIONS)
    for caption, line in zip(CAPTIONS.split("\n"), done.stdout.split("\n"), strict=False):
        wanted = [word for word in line.rstrip().split(" ") if word not in drop]
        assert penn_treebank(caption) == wanted


def test_the_treebank_tokeniser_without_java() -> None:
    assert penn_treebank("A man's dog (isn't) happy!") == (
        ["a", "man", "'s", "dog", "-lrb-", "is", "n't", "-rrb-", "happy"]
    )
    assert json.dumps(penn_treebank("")) == "[]"
