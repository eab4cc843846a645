"""SeqGAN's oracle: its format, its own entropy, and what it thinks of other texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlseq
from rlseq.envs.oracle import Oracle, random_oracle

V, H, T = 60, 8, 7


def arrays(seed: int = 0, words: int = V, embedding: int = 5, hidden: int = H) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"emb": (words, embedding), "Wout": (hidden, words), "bout": (words,)}
    for gate in "ifoc":
        shapes |= {f"W{gate}": (embedding, hidden), f"U{gate}": (hidden, hidden), f"b{gate}": (hidden,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def by_hand(a: dict[str, Any], tokens: Any) -> Any:
    """The formula of the format, one token at a time, in float64."""

    def sigma(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    a = {name: value.astype(np.float64) for name, value in a.items()}
    nll = []
    for row in tokens:
        h = c = np.zeros(len(a["bi"]))
        token, total = 0, 0.0
        for word in row:
            x = a["emb"][token]
            i, f, o = (sigma(x @ a[f"W{g}"] + h @ a[f"U{g}"] + a[f"b{g}"]) for g in "ifo")
            c = f * c + i * np.tanh(x @ a["Wc"] + h @ a["Uc"] + a["bc"])
            h = o * np.tanh(c)
            logits = h @ a["Wout"] + a["bout"]
            total -= logits[word] - np.log(np.exp(logits).sum())
            token = word
        nll.append(total / len(row))
    return np.array(nll)


def test_the_file_format_is_the_formula(tmp_path: Path) -> None:
    a = arrays()
    np.savez(tmp_path / "oracle.npz", **a)
    oracle = Oracle.load(tmp_path / "oracle.npz", length=T)
    tokens = torch.randint(V, (20, T))
    np.testing.assert_allclose(oracle.nll(tokens).numpy(), by_hand(a, tokens.numpy()), rtol=1e-5)


def test_it_samples_what_it_believes() -> None:
    """Two ways to its entropy agree: −log p of its samples, and the exact conditional entropies."""
    oracle = Oracle(0, vocab_size=V, length=T, hidden=H)
    samples = oracle.sample(20_000, torch.Generator().manual_seed(1))
    assert samples.shape == (20_000, T)
    nll = oracle.nll(samples)
    gap = float(nll.mean()) - oracle.entropy(20_000, torch.Generator().manual_seed(2))
    assert abs(gap) < 4 * float(nll.std()) * (2 / 20_000) ** 0.5
    assert torch.equal(samples, oracle.sample(20_000, torch.Generator().manual_seed(1)))


def test_a_fresh_oracle_of_full_size_scores_as_published() -> None:
    """N(0, 1) oracles have an entropy of about 5.9 nats per token; uniform words score above 11."""
    oracle = random_oracle(7, 5000, 20, 32)
    own = float(oracle.nll(oracle.sample(1000, torch.Generator().manual_seed(0))).mean())
    uniform = float(oracle.nll(torch.randint(5000, (1000, 20))).mean())
    assert 5.6 < own < 6.2
    assert 10.9 < uniform < 11.5


def test_the_env_rewards_likelihood_and_reports_nll() -> None:
    env: Any = rlseq.make("rlseq/Oracle-v0", num_envs=50, vocab_size=V, length=T, hidden=H)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    batch = rlseq.rollout(policy, env)
    assert torch.equal(batch.mask, torch.ones(50, T, dtype=torch.bool)), "no EOS: every text is T long"
    torch.testing.assert_close(batch.returns, -env.oracle.nll(batch.actions))
    scores = rlseq.evaluate(policy, env, decode="sample", limit=500)
    assert scores["nll_oracle"] == pytest.approx(-scores["reward"])


def test_the_training_set_is_the_oracles_own() -> None:
    env: Any = rlseq.make("rlseq/Oracle-v0", vocab_size=V, length=T, hidden=H, references=3000)
    nll = float(env.oracle.nll(env.items["references"][:, 0]).mean())
    assert nll == pytest.approx(env.oracle.entropy(5000), abs=0.05)


def test_likelihood_moves_a_generator_towards_the_oracle() -> None:
    env: Any = rlseq.make("rlseq/Oracle-v0", num_envs=64, vocab_size=V, length=T, hidden=H)
    policy = rlseq.make_policy("lstm", env, hidden=16, embedding=16)
    before = rlseq.evaluate(policy, env, decode="sample", limit=1000)["nll_oracle"]
    rlseq.train(rlseq.make_agent("mle", policy, lr=1e-2, clip_norm=5.0), env, updates=150)
    after = rlseq.evaluate(policy, env, decode="sample", limit=1000)["nll_oracle"]
    assert after < before - 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("Wo"), "missing: Wo"),
        (lambda a: a.update(Uf=a["Uf"][:, :3]), r"Uf must be \(8, 8\), got \(8, 3\)"),
        (lambda a: a.update(bout=a["bout"][:5]), r"bout must be \(60,\)"),
        (lambda a: a.update(emb=a["emb"][0]), r"emb must be \[V, E\]"),
        (lambda a: a["Wi"].fill(np.nan), "Wi holds NaN"),
    ],
)
def test_a_file_that_is_no_oracle_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    a = arrays()
    change(a)
    np.savez(tmp_path / "broken.npz", **a)
    with pytest.raises(ValueError, match=message):
        Oracle.load(tmp_path / "broken.npz")


def test_tokens_must_be_words_of_the_oracle() -> None:
    oracle = Oracle(0, vocab_size=V, length=T, hidden=H)
    with pytest.raises(ValueError, match=r"0 … 59, got 0 … 60"):
        oracle.nll(torch.tensor([[0, 60]]))
    with pytest.raises(ValueError, match="integers"):
        oracle.nll(torch.zeros(2, 3))


def test_an_oracle_moves_to_a_device_as_a_copy() -> None:
    oracle = Oracle(0, vocab_size=V, length=T, hidden=H)
    assert oracle.to("cpu") is oracle
    moved = oracle.to("meta")
    assert moved.model.head.weight.device.type == "meta"
    assert oracle.model.head.weight.device.type == "cpu", "tasks on another device may share it"


def test_sizes_of_an_oracle_that_was_given_are_its_own() -> None:
    oracle = Oracle(0, vocab_size=V, length=T, hidden=H)
    assert rlseq.make("rlseq/Oracle-v0", oracle=oracle, references=5).max_len == T
    for option in ({"vocab_size": 7}, {"length": 9}, {"hidden": 4}):
        with pytest.raises(TypeError, match="those of the oracle that was given"):
            rlseq.make("rlseq/Oracle-v0", oracle=oracle, **option)
