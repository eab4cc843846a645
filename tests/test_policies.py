"""Every policy keeps the protocol, learns, and refuses sizes that do not fit."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.engine.completions import complete
from rlseq.engine.state import fork
from rlseq.policies import POLICIES as EVERY_POLICY
from rlseq.policies import Learned, Rotary
from rlseq.policies.recurrence import Recurrence, last_state, reversed_within
from rlseq.policies.seq2seq import Seq2Seq
from rlseq.policies.spec import TokenEmbedding, TokenSpec
from rlseq.policies.testing import check_policy
from rlseq.types import State

TASKS: dict[str, dict[str, Any]] = {
    "rlseq/Copy-v0": {"vocab_size": 6, "length": 4},  # a source, and texts that end
    "rlseq/Enumerable-v0": {},  # no source
    "rlseq/Oracle-v0": {"vocab_size": 9, "length": 5, "hidden": 4, "references": 8},  # no end
    "rlseq/Captions-v0": {"scenes": 20},  # an image
}
SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 12, "embedding": 6},
    "gru": {"hidden": 12, "embedding": 6},
    "seq2seq": {"hidden": 12, "embedding": 6},
    "transformer": {"hidden": 12, "heads": 2},
    "captioner": {"hidden": 12, "embedding": 6},
}
POLICIES = {
    name: made for name, made in EVERY_POLICY.items() if name not in ("mlp", "hf", "speakers")
}  # which write no texts, need a model, or need turns
READERS_OF_WORDS = [name for name in POLICIES if name != "captioner"]
HOME = {name: "rlseq/Copy-v0" if name in READERS_OF_WORDS else "rlseq/Captions-v0" for name in POLICIES}
EXTRA: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep with value": {"layers": 3, "value": True},
    "dropout": {"dropout": 0.4},
}


def task(id: str, num_envs: int = 8, **options: Any) -> Any:
    return rlseq.make(id, num_envs=num_envs, seed=3, **{**TASKS[id], **options})


def fits(name: str, id: str) -> bool:
    return HOME[name] == id if name in ("seq2seq", "captioner") else True


PAIRS = [(name, id) for name in POLICIES for id in TASKS if fits(name, id)]


@pytest.mark.parametrize(("name", "id"), PAIRS)
@pytest.mark.parametrize("extra", EXTRA)
def test_protocol(name: str, id: str, extra: str) -> None:
    env = task(id)
    sizes = {**SMALL[name], **EXTRA[extra]}
    if name == "captioner":
        sizes.pop("layers", None)  # its one layer is what attention enters
    check_policy(rlseq.make_policy(name, env, **sizes), env)


@pytest.mark.parametrize("positions", [Rotary, Learned])
@pytest.mark.parametrize("id", TASKS)
def test_protocol_of_the_transformers_variants(positions: Any, id: str) -> None:
    env = task(id)
    policy = rlseq.make_policy(
        "transformer", env, hidden=12, heads=3, embedding=5, positions=positions, value=True
    )
    check_policy(policy, env)


def test_protocol_of_a_gru_with_attention() -> None:
    env = task("rlseq/Copy-v0")
    check_policy(Seq2Seq(nn.GRU, TokenSpec.of(env), hidden=8, embedding=4, layers=2), env)


@pytest.mark.parametrize(("name", "id"), PAIRS)
def test_one_row(name: str, id: str) -> None:
    env = task(id, num_envs=1)
    check_policy(rlseq.make_policy(name, env, **SMALL[name]), env)


@pytest.mark.parametrize("name", READERS_OF_WORDS)
def test_sources_of_different_lengths(name: str) -> None:
    """A short source among long ones is scored as if it were alone, unpadded."""
    env = task("rlseq/Copy-v0")
    policy = rlseq.make_policy(name, env, **SMALL[name]).eval()
    source = torch.tensor([[1, 2, 3, 4], [5, 4, 0, 0], [2, 0, 0, 0]])
    actions = torch.tensor([[1, 2, 3, 4, 0], [5, 4, 0, 0, 0], [2, 0, 0, 0, 0]])
    rows = torch.arange(3)
    together = policy.evaluate(actions, {"source": source, "index": rows})
    for row, length in enumerate((4, 2, 1)):
        at = slice(row, row + 1)
        alone = policy.evaluate(actions[at], {"source": source[at, :length], "index": rows[at]})
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[row])


@pytest.mark.parametrize("name", READERS_OF_WORDS)
def test_an_empty_source_is_no_nan(name: str) -> None:
    env = task("rlseq/Copy-v0")
    policy = rlseq.make_policy(name, env, **SMALL[name]).eval()
    context = {"source": torch.zeros(2, 4, dtype=torch.int64), "index": torch.arange(2)}
    actions = torch.zeros(2, 5, dtype=torch.int64)
    seen = policy.evaluate(actions, context)
    assert seen.log_probs.isfinite().all()
    shorter = policy.evaluate(actions, {**context, "source": context["source"][:, :2]})
    torch.testing.assert_close(shorter.log_probs, seen.log_probs)


@pytest.mark.parametrize(("name", "id"), PAIRS)
def test_every_parameter_learns(name: str, id: str) -> None:
    env = task(id)
    policy = rlseq.make_policy(name, env, **SMALL[name], value=True)
    batch = rlseq.rollout(policy, env)
    seen = policy.evaluate(batch.actions, batch.context)
    (seen.log_probs + seen.values).sum().backward()
    still = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("name", ["seq2seq", "transformer"])
@pytest.mark.parametrize("id", ["rlseq/Copy-v0", "rlseq/Reverse-v0"])
def test_attention_solves_copying(name: str, id: str) -> None:
    env = rlseq.make(id, num_envs=64, seed=0, vocab_size=12, length=6)
    sizes = {"hidden": 48} if name == "transformer" else {"hidden": 48, "embedding": 24}
    policy = rlseq.make_policy(name, env, **sizes)
    rlseq.train(rlseq.make_agent("mle", policy, lr=3e-3), env, updates=150)
    assert rlseq.evaluate(policy, env, limit=256)["reward"] > 0.95


@pytest.mark.parametrize("name", POLICIES)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    def weights(seed: int) -> Tensor:
        torch.rand(1)  # the global stream matters not
        policy = rlseq.make_policy(name, task(HOME[name]), seed=seed, **SMALL[name])
        return torch.cat([p.flatten() for p in policy.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_an_older_state_of_the_cache_stays_good() -> None:
    """Every state of a rollout can be gone on from once it is over, without a copy made on the way."""
    env = task("rlseq/Oracle-v0", num_envs=4)
    policy = rlseq.make_policy("transformer", env, **SMALL["transformer"]).eval()
    tokens = torch.randint(9, (4, 5), generator=torch.Generator().manual_seed(0))
    states: list[State] = [policy.start({"index": torch.arange(4)})]
    logits = []
    with torch.no_grad():
        for t in range(5):
            now, state = policy.step(tokens[:, t], states[-1])
            states.append(state)
            logits.append(now)
        order = torch.tensor([2, 0, 0])
        again, _ = policy.step(tokens[order, 2], fork(states[2], order))
    torch.testing.assert_close(again, logits[2][order])


def test_rows_of_different_places_step_together() -> None:
    """Prefixes of different lengths are completed in one batch: the place is a matter of the row."""
    env = task("rlseq/Oracle-v0", num_envs=4)
    policy = rlseq.make_policy("transformer", env, **SMALL["transformer"]).eval()
    tokens = torch.randint(9, (4, 5), generator=torch.Generator().manual_seed(0))
    state, logits, states = policy.start({"index": torch.arange(4)}), [], []
    with torch.no_grad():
        for t in range(5):
            states.append(state)
            now, state = policy.step(tokens[:, t], state)
            logits.append(now)
        mixed = join(fork(states[1], torch.tensor([0])), fork(states[3], torch.tensor([2])))
        got, _ = policy.step(torch.stack([tokens[0, 1], tokens[2, 3]]), mixed)
    torch.testing.assert_close(got, torch.stack([logits[1][0], logits[3][2]]))


def join(a: State, b: State) -> State:
    if isinstance(a, Tensor):
        return torch.cat([a, b])
    return tuple(join(x, y) for x, y in zip(a, b, strict=True))


def test_turned() -> None:
    x = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]]).unsqueeze(2)
    present = x.squeeze(2) > 0
    assert reversed_within(x, present).squeeze(2).tolist() == [[3, 2, 1, 0], [4, 0, 0, 0]]
    assert torch.equal(reversed_within(reversed_within(x, present), present), x)
    assert last_state(x, present).squeeze(1).tolist() == [3, 4]


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_recurrence_is_torchs_own(cell: Any) -> None:
    recurrence = Recurrence(cell, 3, 4, layers=2)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    wanted, _ = recurrence.rnn(x)
    torch.testing.assert_close(recurrence.unroll(x), wanted)
    memory = recurrence.from_first(torch.zeros(2, 4))
    for t in range(5):
        first, rest = x[:, t, :2], x[:, t, 2:]
        h, memory = recurrence.step(recurrence.entering(first) + recurrence.entering(rest, 2), memory)
        torch.testing.assert_close(h, wanted[:, t])


def test_a_vocabulary_is_multiplied_once_where_it_is_smaller_than_the_batch() -> None:
    recurrence, embedding, dropout = Recurrence(nn.LSTM, 3, 4), TokenEmbedding(5, 3), nn.Dropout(0.5)
    words = torch.arange(20) % 5
    wanted = recurrence.entering(embedding(words))
    for few in (words, words[:5]):  # more than words of the vocabulary, and as many
        found = recurrence.entering_words(few, embedding, dropout.eval())
        torch.testing.assert_close(found, wanted[: len(few)])
    assert not torch.allclose(recurrence.entering_words(words, embedding, dropout.train()), wanted)
    weights = torch.nn.functional.one_hot(words, 5).float()
    torch.testing.assert_close(recurrence.entering_words(weights, embedding, dropout.eval()), wanted)


def test_words() -> None:
    words = TokenSpec(written=5, read=6, bos=5)
    assert words.before(torch.tensor([[1, 2, 3]])).tolist() == [[5, 1, 2]]
    assert words.present(torch.tensor([[1, 0], [0, 0]])).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("name", POLICIES)
def test_under_autocast(name: str) -> None:
    """Products in bfloat16, probabilities in float32, and gradients that arrive."""
    env = task(HOME[name])
    policy = rlseq.make_policy(name, env, **SMALL[name], value=True).eval()
    gradients = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            if enabled:
                batch = rlseq.rollout(policy, env)
            seen = policy.evaluate(batch.actions, batch.context)
        assert seen.log_probs.dtype == torch.float32
        assert ((seen.log_probs - batch.log_probs).abs() * batch.mask).max() < 0.05
        loss = (seen.log_probs * batch.mask).sum() + (seen.entropy * batch.mask).sum()
        gradients.append(torch.autograd.grad(loss, policy.head.weight)[0])
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("assign", [False, True])
def test_copies_have_weights_of_their_own(name: str, assign: bool) -> None:
    env = task(HOME[name])
    policy = rlseq.make_policy(name, env, **SMALL[name])
    copy = deepcopy(policy)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(1.5)
    check_policy(copy, env)
    copy.load_state_dict(deepcopy(policy.state_dict()), assign=assign)
    check_policy(copy, env)
    batch = rlseq.rollout(policy, env)
    again = copy.eval().evaluate(batch.actions, batch.context).log_probs
    torch.testing.assert_close(again * batch.mask, batch.log_probs)


@pytest.mark.parametrize("name", POLICIES)
def test_a_step_is_one_graph(name: str) -> None:
    env = task(HOME[name])
    policy = rlseq.make_policy(name, env, **SMALL[name]).eval()
    traced: Any = torch.compile(policy.step, fullgraph=True, backend="eager")
    with torch.no_grad():
        state, token = policy.start(env.begin()), torch.zeros(8, dtype=torch.int64)
        torch.testing.assert_close(traced(token, state)[0], policy.step(token, state)[0])


@pytest.mark.parametrize("name", POLICIES)
def test_dropout_is_off_in_updates_by_policy_gradients(name: str) -> None:
    env = task(HOME[name])
    policy = rlseq.make_policy(name, env, **SMALL[name], dropout=0.5)
    agent = rlseq.make_agent("reinforce", policy)
    agent.update(agent.collect(env))  # checks that the ratio is 1
    assert policy.training


@pytest.mark.parametrize("name", POLICIES)
def test_greedy_completions_of_greedy_texts_are_these_texts(name: str) -> None:
    """Copied states of every prefix go on as the text itself did."""
    env = task(HOME[name])
    policy = rlseq.make_policy(name, env, **SMALL[name])
    batch = rlseq.rollout(policy, env, decode=rlseq.Greedy())
    done = complete(policy, env, batch, samples=2, decode=rlseq.Greedy())
    wanted = batch.actions.repeat_interleave(2, 0).repeat(env.max_len - 1, 1)
    assert torch.equal(done.actions, wanted)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("lstn", {}, "did you mean 'lstm'"),
        ("lstm", {"hiden": 3}, "did you mean 'hidden'"),
        ("gru", {"heads": 2}, "no option 'heads'"),
        ("lstm", {"hidden": 0}, "hidden must be an integer ≥ 1, got 0"),
        ("lstm", {"layers": 1.5}, "layers must be an integer ≥ 1, got 1.5"),
        ("transformer", {"embedding": -1}, "embedding must be an integer ≥ 1 or None, got -1"),
        ("seq2seq", {"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
        ("transformer", {"hidden": 10, "heads": 4}, "divisible by heads, got hidden=10 and heads=4"),
        ("transformer", {"hidden": 6, "heads": 2, "positions": Rotary}, "even width per head, got 6 / 2 = 3"),
    ],
)
def test_bad_sizes(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        rlseq.make_policy(name, task("rlseq/Copy-v0"), **sizes)


def test_attention_needs_a_source() -> None:
    with pytest.raises(ValueError, match="this task has none; use lstm"):
        rlseq.make_policy("seq2seq", task("rlseq/Enumerable-v0"))


def test_a_text_longer_than_the_places_learned() -> None:
    env = task("rlseq/Copy-v0")
    policy = rlseq.make_policy("transformer", env, **SMALL["transformer"])
    context = env.begin()
    with pytest.raises(ValueError, match="learned 5 places, got 6 words"):
        policy.evaluate(torch.zeros(8, 6, dtype=torch.int64), context)
