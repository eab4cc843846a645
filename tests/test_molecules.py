"""Molecules: SMILES that are read, refused and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.data.formats import DataError
from rlseq.data.smiles import BadMolecule, read_smiles
from rlseq.engine.evaluation import evaluate_texts
from rlseq.envs.molecule_rules import fingerprint, rules
from rlseq.envs.molecules import toy_molecules


def molecules(rows: int = 4, **options: Any) -> Any:
    return rlseq.make("rlseq/Molecules-v0", num_envs=rows, **options)


def judged(env: Any, *texts: str) -> dict[str, list[float]]:
    """What the judges say of a batch."""
    rows = [[*env.vocab.encode(text), env.vocab.eos] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    return {name: judge(tokens, mask, {}).tolist() for name, judge in env.metrics.items() if name != "qed"}


@pytest.mark.parametrize(
    ("text", "atoms", "rings"),
    [
        ("CCO", 3, 0),
        ("c1ccccc1", 6, 1),
        ("CC(=O)Oc1ccccc1C(=O)O", 13, 1),
        ("C1CC2CCC1C2", 7, 2),
        ("C%10CCCC%10", 5, 1),
        ("[NH3+]CC([O-])=O", 5, 0),
        ("c1cc[nH]c1", 5, 1),
        ("C[N+](C)(C)C.[Cl-]", 6, 0),
        ("O=c1cc[nH]cc1", 7, 1),
        ("c1ccc2[nH]ccc2c1", 9, 2),
        ("c1ccc2cccc-2cc1", 10, 2),
        ("c1ccccc1c1ccccc1", 12, 2),
        ("Cn1cnc2c1c(=O)n(C)c(=O)n2C", 14, 2),
        ("[O-][n+]1ccccc1", 7, 1),
        ("[cH-]1cccc1", 5, 1),
        ("c1ccbcc1", 6, 1),
        ("C/C=C/Br", 4, 0),
        ("N[C@@H](C)C(=O)O", 6, 0),
    ],
)
def test_molecules_are_read(text: str, atoms: int, rings: int) -> None:
    found = read_smiles(text)
    assert (len(found.atoms), found.rings) == (atoms, rings)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no atom"),
        ("CxC", "'x' is no part of a SMILES"),
        ("C(C", r"a \( is not closed"),
        ("CC)C", r"a \) has no \("),
        ("C1CC", "ring 1 is not closed"),
        ("C11", "ring 1 joins atoms that are one"),
        ("C1C1", "joined already"),
        ("CC=", "the last bond leads to no atom"),
        ("=CC", "follows no atom"),
        ("C(=)C", "a bond leads to no atom"),
        ("C=(C)C", "a branch follows no atom"),
        ("CC.", "the last bond leads to no atom"),
        ("FC(F)(F)(F)F", "an atom C has bonds of 5 in all, 4 at most"),
        ("C[NH4]", "an atom N has bonds of 1 in all, -1 at most"),
        ("O=O=O", "an atom O has bonds of 4 in all, 2 at most"),
        ("ccc", "an aromatic atom c is in no aromatic ring"),
        ("c1ccccc1(C)C", "an aromatic atom c has 4 neighbours, 3 at most"),
        ("[Xy3z]", "is no atom"),
        ("C[Zz]", r"\[Zz\] is no atom"),
        ("CC()C", "a branch has no atom"),
        ("c1cccc1", "double bonds cannot be placed in its aromatic rings"),
        ("c1ccnc1", "double bonds cannot be placed"),
        ("c1ccc2cccc2c1", "double bonds cannot be placed"),
        ("c(c1ccccc1)c1ccccc1", "an aromatic atom c is in no aromatic ring"),
    ],
)
def test_what_is_no_molecule_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadMolecule, match=why):
        read_smiles(text)


def test_a_ring_of_thousands_of_atoms_is_read() -> None:
    """As a line of a hostile file may hold one, whose double bonds are placed one after the other."""
    assert len(read_smiles(f"c1{'c' * 2998}c1").atoms) == 3000


def test_molecules_of_the_grammar_are_valid_different_and_not_all_alike() -> None:
    texts = [pair.target for pair in toy_molecules()]
    assert len(set(texts)) == len(texts)
    for text in texts:
        read_smiles(text)
    assert 0.5 < sum(map(rules, texts)) / len(texts) < 0.95


def test_each_judge_says_what_its_name_says() -> None:
    env = molecules()
    known = env.corpus.texts()[0][0]
    found = judged(env, known, known, "C1CC", "CCCCO", "c1ccncc1CCNCC")
    assert found["valid"] == [1, 1, 0, 1, 1]
    assert found["novel"][:4] == [0, 0, 0, 1]
    assert found["unique"] == pytest.approx([0.5, 0.5, 0, 1, 1])
    assert found["rules"][2:] == pytest.approx([0, 1 / 3, 1])
    assert found["diversity"][2] == 0
    assert found["diversity"][0] == found["diversity"][1] < found["diversity"][3]


def test_one_molecule_has_no_diversity() -> None:
    env = molecules()
    assert judged(env, "CCO", "CCO", "CCO")["diversity"] == pytest.approx([0, 0, 0])
    assert judged(env, "CCO")["diversity"] == [0]
    assert fingerprint("OCC") == fingerprint("CCO")  # a graph, however it is written
    assert fingerprint("CCO") != fingerprint("CCN")


def test_a_user_s_molecules_and_their_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.smi"
    good = ["C" * n + "O" + "C" * m for n in range(1, 8) for m in range(8)]
    path.write_text("SMILES,SPLIT\n" + "".join(f"{text} name{n}\n" for n, text in enumerate(good)))
    env = molecules(path=str(path))
    assert set(env.vocab.words) == {"<eos>", "<unk>", "C", "O"}
    assert env.size + molecules(path=str(path), split="test").size < len(good)
    path.write_text("\n".join(good) + "\nC1CC\n")
    with pytest.raises(DataError, match=r"mine\.smi:57: expected SMILES, got 'C1CC': ring 1 is not closed"):
        molecules(path=str(path))
    with pytest.warns(UserWarning, match="skipped 1 line"):
        molecules(path=str(path), skip_bad=True)


def test_a_reward_on_one_property_can_be_joined_by_variety() -> None:
    env = molecules(8, reward="rules + 0.5*unique")
    assert set(env.parts) == {"rules", "unique"}
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    for name in ("mle", "rloo"):
        agent = rlseq.make_agent(name, policy)
        agent.update(agent.collect(env))
    assert {"valid", "novel", "unique", "diversity"} <= rlseq.evaluate(policy, env, limit=8).keys()


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, extra: str) -> Any:
        raise ImportError(f"{module} is not installed here; pip install 'rlseq[{extra}]'")

    monkeypatch.setattr("rlseq.envs.molecules.need", missing)
    with pytest.raises(ImportError, match=r"selfies is not installed here; pip install 'rlseq\[molecules\]'"):
        molecules(form="selfies")


def test_rdkit_judges_and_refuses_by_line(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    from rlseq.envs.molecule_rules import qed

    assert qed("CC(=O)Oc1ccccc1C(=O)O") == pytest.approx(0.550, abs=0.001)  # aspirin
    path = tmp_path / "mine.smi"
    path.write_text("CCO\nCCN\n" * 20 + "CN(C)(C)C\n")
    with pytest.raises(DataError, match=r"mine\.smi:41: expected SMILES, got 'CN\(C\)\(C\)C': rdkit refuses"):
        molecules(path=str(path), check="rdkit")
    assert "qed" in molecules(reward="qed + 0.5*unique").metrics


def test_every_selfies_is_a_molecule() -> None:
    pytest.importorskip("selfies")
    env = molecules(32, form="selfies")
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    found = evaluate_texts(policy, env, decode="sample", limit=64)
    known = [line["scores"]["valid"] for line in found.lines(env) if "<unk>" not in line["text"] != ""]
    assert len(known) > 5
    assert sum(known) / len(known) > 0.9  # the parser here is at times stricter than SELFIES' own
