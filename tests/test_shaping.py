"""Tables of shaping: what they do to the best policy, and every way to give one."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.cli import main
from rlseq.compare.plan import ComparisonConfig
from rlseq.envs.wrappers.shaping import again, read_shaping, repetition, variety, with_shaping
from rlseq.policy_gradient.returns import reward_to_go
from rlseq.training.experiment import build, run
from rlseq.training.run_config import RunConfig

TABLE = {"potentials": {"length": 2.0, "variety": -3.0}, "costs": {"living": 0.01}}
COPY = {"vocab_size": 5, "length": 3, "items": 60, "num_envs": 16}


def every_text(env: Any) -> tuple[Tensor, Tensor]:
    """All texts of a task whose word 0 ends a text."""
    tokens = torch.tensor(list(product(range(len(env.vocab)), repeat=env.max_len)))
    ended = ((tokens == 0).cumsum(1) - (tokens == 0).long()) > 0
    return tokens.where(~ended, 0), ~ended


def returns(env: Any, gamma: float) -> Tensor:
    """The discounted return of every text, `[N]`."""
    tokens, mask = every_text(env)
    context = {"index": torch.zeros(len(tokens), dtype=torch.int64)}
    rewards = env.total_reward(tokens, mask, context)
    return reward_to_go(rewards * mask, torch.zeros_like(mask), gamma)[:, 0]


def best_next(env: Any, gamma: float) -> dict[tuple[int, ...], int]:
    """The best word after every prefix, by enumeration of all that may follow."""
    tokens, mask = every_text(env)
    context = {"index": torch.zeros(len(tokens), dtype=torch.int64)}
    rewards = env.total_reward(tokens, mask, context)
    to_go = reward_to_go(rewards * mask, torch.zeros_like(mask), gamma)
    best: dict[tuple[int, ...], tuple[float, int]] = {}
    for row, words in enumerate(tokens.tolist()):
        for t in range(int(mask[row].sum())):
            found = float(to_go[row, t]), words[t]
            best[tuple(words[:t])] = max(best.get(tuple(words[:t]), found), found)
    return {prefix: word for prefix, (_, word) in best.items()}


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("weights", [{"length": 5.0}, {"variety": -4.0}, {"length": -3.0, "variety": 7.0}])
def test_potentials_leave_the_best_policy(gamma: float, weights: dict[str, float]) -> None:
    env = rlseq.make("rlseq/Enumerable-v0", vocab_size=3, length=4)
    shaped = with_shaping(env, {"potentials": weights}, gamma=gamma)
    tokens, mask = every_text(env)
    parts = shaped.reward_parts(tokens, mask, {"index": torch.zeros(len(tokens), dtype=torch.int64)})
    assert all(parts[f"potential_{name}"].abs().max() > 0.1 for name in weights)
    torch.testing.assert_close(returns(shaped, gamma), returns(env, gamma), atol=1e-4, rtol=0)
    assert best_next(shaped, gamma) == best_next(env, gamma)


@pytest.mark.parametrize("cost", ["living", "repetition", "again"])
def test_costs_change_the_best_policy(cost: str) -> None:
    changed = 0
    for seed in range(5):
        env = rlseq.make("rlseq/Enumerable-v0", vocab_size=3, length=4, data_seed=seed)
        priced = with_shaping(env, {"costs": {cost: 3.0}})
        changed += best_next(env, 1.0) != best_next(priced, 1.0)
    assert changed == 5


def test_words_that_come_again_by_hand() -> None:
    tokens = torch.tensor([[2, 2, 3, 2, 9, 9]])
    mask = torch.tensor([[True, True, True, True, False, False]])
    assert repetition(tokens, mask, {}).tolist() == [[0, 1, 0, 0, 0, 0]]
    assert again(tokens, mask, {}).tolist() == [[0, 1, 0, 1, 0, 0]]
    assert (6 * variety(tokens, mask, {})).tolist() == [[1, 1, 2, 2, 2, 2]]


def test_a_metric_is_a_potential_where_it_has_increments() -> None:
    env = rlseq.make("rlseq/Copy-v0", **{**COPY, "num_envs": 8})
    shaped = with_shaping(env, {"potentials": {"edit": 1.0}})
    batch = rlseq.rollout(rlseq.make_policy("gru", env, hidden=4, embedding=4), shaped)
    parts = shaped.reward_parts(batch.actions, batch.mask, batch.context)
    torch.testing.assert_close(parts["potential_edit"].sum(1), torch.zeros(8), atol=1e-6, rtol=0)
    assert parts["potential_edit"].abs().sum() > 0.1
    with pytest.raises(
        ValueError, match=r"the metric ter is no potential of this task: TER has no increments"
    ):
        with_shaping(env, {"potentials": {"ter": 1.0}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("potentials: {length: 0.1", "cannot be read as YAML"),
        ("", "must hold potentials and costs, names with weights, got None"),
        ("potential: {length: 0.1}", "unknown key 'potential'; did you mean 'potentials'"),
        ("costs: 3", "costs must hold names with weights, got 3"),
        ("costs: {livng: 0.1}", "costs has an unknown name 'livng'; did you mean 'living'"),
        ("potentials: {lenght: 0.1}", "potentials has an unknown name 'lenght'; did you mean 'length'"),
        ("costs: {living: much}", r"costs\.living must be a finite number, got 'much'"),
        ("costs: {living: .inf}", r"costs\.living must be a finite number, got inf"),
        ("costs: {living: true}", r"costs\.living must be a finite number, got True"),
    ],
)
def test_errors_name_the_file_and_the_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "shaping.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"shaping.yaml:? .*{message}"):
        read_shaping(path)


def config(folder: Path, agent: str = "reinforce", **changes: Any) -> RunConfig:
    plain: dict[str, Any] = {"env": "rlseq/Copy-v0", "agent": agent, "algorithm": agent, "options": COPY}
    plain |= {"policy": "gru", "sizes": {"hidden": 8, "embedding": 4}, "budget_tokens": 600, "texts": 10}
    return RunConfig(**{**plain, "evaluations": 2, "folder": str(folder), "shaping": TABLE, **changes})


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["update"] == 8:
            raise KeyboardInterrupt

    def weights(folder: Path) -> list[Tensor]:
        return list(rlseq.load(folder).policy.state_dict().values())

    whole, stopped, plain = (tmp_path / place for place in ("whole", "stopped", "plain"))
    run(config(whole), quiet=True, alarms="ignore")
    with pytest.raises(KeyboardInterrupt):
        run(config(stopped), quiet=True, alarms="ignore", on_update=stop)
    main(["resume", str(stopped), "--quiet"])
    assert all(map(torch.equal, weights(stopped), weights(whole)))
    run(config(plain, shaping={}), quiet=True, alarms="ignore")
    assert not all(map(torch.equal, weights(plain), weights(whole)))


def test_the_command_takes_a_file_and_keeps_its_table(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "shaping.yaml"
    file.write_text("costs: {living: 0.2}\npotentials: {length: 1}\n", "utf-8")
    words = "train reinforce --env rlseq/Copy-v0 --option length=3 items=60 --policy gru hidden=8 --quiet"
    words += f" --budget-tokens 200 --texts 10 --alarms ignore --shaping {file} --out {tmp_path / 'a'}"
    main(words.split())
    kept = json.loads((tmp_path / "a/run.json").read_text("utf-8"))
    assert kept["shaping"] == {"costs": {"living": 0.2}, "potentials": {"length": 1.0}}
    assert "cost_living" not in capsys.readouterr().out  # tests report the reward of the task
    file.write_text("costs: {life: 0.2}", "utf-8")
    with pytest.raises(SystemExit):
        main(words.split())
    assert "shaping.yaml: costs has an unknown name 'life'" in capsys.readouterr().err


def test_agents_of_a_comparison_have_tables_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "shaping.yaml"
    file.write_text("costs: {living: 0.2}", "utf-8")
    agents: dict[str, Any] = {"rloo": {}, "priced": {"agent": "rloo", "shaping": str(file)}}
    agents["shaped"] = {"agent": "rloo", "shaping": TABLE, "lr": 1e-3}
    runs = {job.agent: job for job in ComparisonConfig("rlseq/Copy-v0", agents, seeds=1).runs()}
    assert runs["priced"].shaping == {"costs": {"living": 0.2}}
    assert runs["shaped"].shaping == TABLE
    assert "shaping" not in {**runs["shaped"].hyper, **runs["rloo"].plain()}
    _, env, fresh = build(runs["shaped"])
    assert {*env.parts} - {*fresh.parts} == {"potential_length", "potential_variety", "cost_living"}


@pytest.mark.parametrize("agent", ["mle", "gail", "es"])
def test_agents_that_no_reward_trains_are_refused(agent: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"shaping changes the rewards of steps, and {agent} is not trained on"
    ):
        build(config(tmp_path, agent))


def test_stock_agents_are_shaped_with_their_own_discount(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    job = config(tmp_path, "sb3-ppo", shaping={"potentials": {"length": 1.0}})
    _, env, _ = build(job)
    tokens, mask = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[True, True, True, False]])
    paid = env.parts["potential_length"](tokens, mask, {})
    torch.testing.assert_close(paid, torch.tensor([[0.99 / 4, 0.99 / 2 - 0.25, -0.5, 0.0]]))
