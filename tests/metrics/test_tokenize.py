from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from rlseq.metrics import BLEU, evaluate
from rlseq.metrics.tokenize import characters, letters, mteval_13a, single_space, whitespace

theirs = Tokenizer13a()
printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)
pieces = [*"ab1 2.,-&;'\"<>()[]{}$%\n\t:/?!~@", "&quot;", "&amp;lt;", "<skipped>", "-\n"]
marks = st.lists(st.sampled_from(pieces), max_size=12).map("".join)


@given(st.one_of(printable, marks))
def test_13a_is_sacrebleus(text: str) -> None:
    assert mteval_13a(text) == theirs(text.rstrip()).split()


def test_13a_by_hand() -> None:
    assert mteval_13a("9-to-5, $1,000.50 (a.b) don't.") == (
        ["9", "-", "to-5", ",", "$", "1,000.50", "(", "a", ".", "b", ")", "don't", "."]
    )


def test_the_simple_ones() -> None:
    assert whitespace(" a  b\n") == ["a", "b"]
    assert single_space("a  b") == ["a", "", "b"]
    assert characters("a b") == ["a", " ", "b"]
    assert letters(" a b\tc") == ["a", "b", "c"]


def test_the_package_needs_torch_and_numpy_only() -> None:
    code = (
        "import sys, rlseq.metrics\n"
        "extra = {'sacrebleu', 'pycocoevalcap', 'rapidfuzz', 'matplotlib', 'scipy', 'regex'}\n"
        "assert not extra & set(sys.modules), extra & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_evaluate_reports_scores_and_signatures(corpus: Any, capfd: Any) -> None:
    hypotheses, references = corpus(0, 20)
    names = ("bleu", "bleu_2_coco", "cider_d", "rouge_l", "rouge_2", "chrf", "ter", "wer", "cer")
    sets = ("length", "distinct_2", "repetition_4", "commonness", "self_bleu")
    report = evaluate(hypotheses, references, metrics=[*names, *sets])
    assert list(report) == [*names, *sets] == list(report.signatures)
    assert report["bleu"] == BLEU(references).corpus(hypotheses)
    assert "tok:characters" in report.signatures["cer"]
    assert capfd.readouterr() == ("", "")
    plain = evaluate(hypotheses, references, metrics="bleu", tokenize=whitespace)
    assert "tok:whitespace" in plain.signatures["bleu"]
