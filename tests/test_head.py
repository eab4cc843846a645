"""`token_scores` against autograd on a plain log-softmax, in float64."""

import pytest
import torch
from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN
from rlseq.policies import head
from rlseq.policies.head import Head
from rlseq.types import Behaviour

B, T, H, V = 3, 5, 4, 7


def plain(
    features: Tensor, weight: Tensor, bias: Tensor, actions: Tensor, behaviour: Behaviour
) -> tuple[Tensor, Tensor]:
    logits = (features @ weight.t() + bias) / behaviour.temperature
    if isinstance(behaviour.support, Tensor):
        logits = logits.masked_fill(~behaviour.support, FORBIDDEN)
    log_p = logits.log_softmax(-1)
    return log_p.gather(2, actions.unsqueeze(2)).squeeze(2), -(log_p.exp() * log_p).sum(-1)


def token_scores(
    features: Tensor, weight: Tensor, bias: Tensor, actions: Tensor, behaviour: Behaviour
) -> tuple[Tensor, Tensor]:
    weight = torch.cat([weight, bias.unsqueeze(1)], 1)
    return head.token_scores(features, weight, actions, behaviour)[:2]


Parts = tuple[Tensor, Tensor, Tensor]  # features, weight, bias


def numbers(seed: int = 0) -> tuple[Parts, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features, weight, bias = (torch.randn(shape, generator=generator) for shape in ((B, T, H), (V, H), (V,)))
    return (features, weight, bias), torch.randint(V, (B, T), generator=generator)


def a_support(actions: Tensor) -> Tensor:
    support = torch.rand(B, T, V, generator=torch.Generator().manual_seed(1)) < 0.5
    return support.scatter(2, actions.unsqueeze(2), True)


@pytest.mark.parametrize(
    "weights", [(1.0, 0.0), (0.0, 1.0), (1.0, -0.3)], ids=["log_prob", "entropy", "both"]
)
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [1, 2 * V, 1 << 22], ids=["row", "two rows", "all"])
def test_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
    weights: tuple[float, float],
    temperature: float,
    masked: bool,
    chunk: int,
) -> None:
    monkeypatch.setattr(head, "CHUNK", chunk)  # 15 rows: "two rows" leaves a last chunk of one
    parts, actions = numbers()
    behaviour = Behaviour(temperature, a_support(actions) if masked else None)
    by_score = torch.randn(2, B, T, generator=torch.Generator().manual_seed(2))
    results = []
    for score in (token_scores, plain):
        features, weight, bias = leaves = [part.double().requires_grad_() for part in parts]
        scores = score(features, weight, bias, actions, behaviour)
        # A score of weight 0 is left out, as in an agent without entropy: its gradient never arrives.
        terms = [w * (s * by).sum() for w, s, by in zip(weights, scores, by_score, strict=True) if w]
        results.append([*scores, *torch.autograd.grad(sum(terms[1:], terms[0]), leaves)])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_hand_computed() -> None:
    """Two words at odds 1 : 3; H = log 4 − ¾ log 3."""
    features, weight = torch.ones(1, 1, 1), torch.tensor([[0.0], [3.0]]).log().nan_to_num(neginf=0.0)
    log_prob, entropy = token_scores(features, weight, torch.zeros(2), torch.tensor([[1]]), Behaviour())
    three, four = torch.tensor(3.0).log(), torch.tensor(4.0).log()
    torch.testing.assert_close(log_prob[0, 0], three - four)
    torch.testing.assert_close(entropy[0, 0], four - 0.75 * three)


def test_support_is_broadcast() -> None:
    parts, actions = numbers()
    support = torch.ones(V, dtype=torch.bool)
    support[0] = False
    actions = actions.clamp(min=1)
    one = token_scores(*parts, actions, Behaviour(1.0, support))
    all_of_them = token_scores(*parts, actions, Behaviour(1.0, support.expand(B, T, V)))
    assert torch.equal(one[0], all_of_them[0])
    assert torch.equal(one[1], all_of_them[1])


def test_far_logits_stay_finite() -> None:
    """One word certain: log-probability 0 and entropy 0, and no NaN in any gradient."""
    parts, actions = numbers()
    features, weight, bias = leaves = [(100.0 * part).requires_grad_() for part in parts]
    log_prob, entropy = token_scores(features, weight, bias, actions, Behaviour())
    (log_prob.sum() + entropy.sum()).backward()  # type: ignore[no-untyped-call]
    assert log_prob.isfinite().all()
    assert entropy.min() >= -1e-4
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("value", [False, True])
def test_the_head_scores_and_values(value: bool) -> None:
    (features, *_), actions = numbers()
    policy_head = Head(H, V, value)
    seen = policy_head.evaluate(features, actions)
    wanted = token_scores(
        features, policy_head.weight[:, :-1], policy_head.weight[:, -1], actions, Behaviour()
    )
    assert torch.equal(seen.log_probs, wanted[0])
    assert torch.equal(seen.entropy, wanted[1])
    assert (seen.values is not None) == value
    if seen.values is not None:
        assert seen.values.shape == (B, T)


def test_a_gpu_takes_larger_chunks() -> None:
    """A chunk is several kernels, of which 10,000 states and 50,000 words took 500 chunks."""
    rows = [head.rows_at_once(50_000, torch.device(name)) for name in ("cpu", "cuda")]
    assert rows == [20, 335]
