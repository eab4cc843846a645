"""Exercises on a pretended CUDA device: rollouts, updates, and a run that stops and goes on.

python -m tests.pretended.exercises        print the answers of the exercises of the tests, as JSON
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from tests.pretended import guard

if __name__ == "__main__":
    try:
        guard.load()  # before torch is imported
    except guard.NoCompiler as reason:
        sys.exit(f"skipped: {reason}")

import torch

import rlseq
from rlseq.agents import AGENTS
from rlseq.agents.adversarial import AdversarialRounds, ThroughDiscriminator
from rlseq.engine.rollout import decode_loop, draw_uniforms
from rlseq.training import checkpoint
from tests.pretended import cuda

SMALL: dict[str, dict[str, Any]] = {
    "rlseq/Copy-v0": {"vocab_size": 4, "length": 3},
    "rlseq/Reverse-v0": {"vocab_size": 4, "length": 3},
    "rlseq/HMM-v0": {},
    "rlseq/Oracle-v0": {"references": 64},
}
SIZES: dict[str, Any] = {"hidden": 8}
Waits = dict[str, int]  # how often the host waited, by line and operation


@dataclass(frozen=True)
class Trial:
    """An agent that learns in a task with a policy, and goes on from its own checkpoint.

    Args:
        agent: its name.
        policy: the policy's name.
        env: the id of the task.
        settings: the agent's settings.
        memory: texts of past policies that a discriminator remembers.
        device: where everything is.
    """

    agent: str
    policy: str = "gru"
    env: str = "rlseq/Copy-v0"
    settings: dict[str, Any] = field(default_factory=dict)
    memory: int = 0
    device: str = "cuda"

    @property
    def name(self) -> str:
        """The name of the trial."""
        more = [f"{name}={value}" for name, value in self.settings.items()]
        more += [f"memory={self.memory}"] if self.memory else []
        more += [self.device] if self.device != "cuda" else []
        return " ".join([self.agent, self.policy, self.env.removeprefix("rlseq/").split("-")[0], *more])

    def made(self) -> tuple[Any, Any]:
        """Return the task and the agent."""
        env = rlseq.make(self.env, num_envs=8, seed=0, device=self.device, **SMALL.get(self.env, {}))
        kind = AGENTS[self.agent]
        torch.manual_seed(0)
        value = {} if issubclass(kind, ThroughDiscriminator) else {"value": True}
        if not kind.writes_texts:
            value = {}
        policy = rlseq.make_policy(self.policy, env, **SIZES, **value)
        rounds = {"pretraining": 1, "d": 1, "k": 1} if issubclass(kind, AdversarialRounds) else {}
        agent: Any = rlseq.make_agent(self.agent, policy, **rounds, **self.settings)
        if rounds:
            agent.adversary.texts, agent.adversary.memory = 16, self.memory
        return env, agent


@dataclass
class Answer:
    """The counts of a trial: what the host waited for, and kernels, in a batch and in an update."""

    collect: Waits
    update: Waits
    kernels: tuple[int, int]
    gap: float  # between the weights of a run that stopped and of one that did not


def run(trial: Trial) -> Answer:
    """Run a trial: two updates, of which the second one is counted, and a third after a restart."""
    env, agent = trial.made()
    agent.set_progress(0.5)
    agent.update(agent.collect(env))
    agent.set_progress(0.6)
    collected, batch = counted(lambda: computed(agent, lambda: agent.collect(env)))
    updated, _ = counted(lambda: computed(agent, lambda: agent.update(batch)))
    gap = gap_after_restart(trial, agent, env)
    return Answer(collected[0], updated[0], (collected[1], updated[1]), gap)


def computed(agent: Any, work: Callable[[], Any]) -> Any:
    """Return the result of a part of an update, computed in the context that the training loop enters."""
    with agent.computing():
        return work()


def counted(run: Callable[[], Any]) -> tuple[tuple[Waits, int], Any]:
    """Return what the host waited for in a function and its number of kernels, and what it returned."""
    cuda.LEDGER.reset()
    result = run()
    return (cuda.LEDGER.waited(), cuda.LEDGER.kernels.total()), result


def gap_after_restart(trial: Trial, agent: Any, env: Any) -> float:
    """Return the largest difference of weights, after one more update here and after a restart."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 3, checkpoint.state_of(agent, env))
        found = checkpoint.load(Path(folder))
    assert found is not None
    env_again, again = trial.made()
    checkpoint.restore(again, env_again, found[1])
    for each, task in ((agent, env), (again, env_again)):
        torch.set_rng_state(found[1]["torch"])
        each.set_progress(0.6)
        each.update(each.collect(task))
    pairs = zip(agent.policy.parameters(), again.policy.parameters(), strict=True)
    return max(float((on_host(a) - on_host(b)).abs().max()) for a, b in pairs)


def on_host(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU."""
    return value.detach().cpu()


def answers(trials: list[Trial]) -> dict[str, Any]:
    """Return the answers of trials by name; of a failed one, its error."""
    found: dict[str, Any] = {}
    for trial in trials:
        try:
            found[trial.name] = asdict(run(trial))
        except Exception:
            found[trial.name] = {"error": traceback.format_exc(limit=-6)}
    return found


REWARDS = (*(("G2P", name) for name in ("bleu", "self_bleu", "ter", "cer")), ("Numbers", "bleu"))


def reward_on_the_device(task: str, reward: str) -> dict[str, Any]:
    """Return the waits in a rollout with a metric as reward, and the distance to rewards on a CPU."""
    env = rlseq.make(f"rlseq/{task}-v0", num_envs=8, seed=0, device="cuda", reward=reward)
    policy = rlseq.make_policy("gru", env, **SIZES)
    rlseq.rollout(policy, env)  # which fits the metric
    (waits, _), batch = counted(lambda: rlseq.rollout(policy, env))
    there = rlseq.make(f"rlseq/{task}-v0", num_envs=8, seed=0, device="cpu", reward=reward)
    texts, mask, index = (on_host(x) for x in (batch.actions, batch.mask, batch.context["index"]))
    wanted = there.total_reward(texts, mask, {**there.contexts(index), "index": index})
    return {"waits": waits, "gap": float((on_host(batch.rewards) - wanted).abs().max())}


def beside_the_step() -> float:
    """Return the kernels that a token needs beside the step of a rollout, which is all that is compiled."""

    def kernels(length: int) -> int:
        env = rlseq.make("rlseq/Copy-v0", num_envs=8, seed=0, device="cuda", vocab_size=4, length=length)
        env.begin()
        log_probs = torch.zeros(8, device="cuda")
        uniform = draw_uniforms(env, env.max_len)

        def step(part: Any, word: Any, *_: Any) -> Any:
            return word, (), log_probs, None

        loop = partial(decode_loop, step, env, env.length, (), [8] * env.max_len, uniform)
        (_, found), _ = counted(loop)
        return found

    return (kernels(6) - kernels(3)) / 3


# ── graphs ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Captured:
    """Rollouts by captured graphs beside plain ones, of the same numbers; the weights change in between."""

    same_words: list[bool]
    gaps: list[float]  # of log-probabilities
    waits: Waits  # of the last rollout, which was replayed
    devices: list[int]  # on which graphs were captured, and events recorded
    pools: int  # different memory pools of all graphs


def captured(policy: str, autocast: torch.dtype | None = None, device: str = "cuda") -> Captured:
    """Write by graphs and without, with weights that change after every rollout."""
    options = {"num_envs": 8, "seed": 0, "device": device, **SMALL["rlseq/Copy-v0"]}
    envs = [rlseq.make("rlseq/Copy-v0", **options) for _ in range(2)]
    policies = [rlseq.make_policy(policy, env, **SIZES) for env in envs]
    cuda.Graph.made.clear()
    cuda.Event.recorded.clear()
    same, gaps = [], []
    waits: Waits = {}
    for _ in range(3):
        (waits, _), by_graph = counted(
            lambda: rlseq.rollout(policies[0], envs[0], compile=True, autocast=autocast)
        )
        plain = rlseq.rollout(policies[1], envs[1], autocast=autocast)
        same.append(torch.equal(on_host(by_graph.actions), on_host(plain.actions)))
        gaps.append(float((on_host(by_graph.log_probs) - on_host(plain.log_probs)).abs().max()))
        with torch.no_grad():
            for each in policies:
                for parameter in each.parameters():
                    parameter.mul_(1.5)
    graphs = cuda.Graph.made
    devices = sorted({*(graph.index for graph in graphs), *cuda.Event.recorded})
    return Captured(same, gaps, waits, devices, len({str(graph.pool()) for graph in graphs}))


# Baselines, discriminators and replays with tensors in their state; the pairs of task and policy differ.
TRIALS = [
    Trial("reinforce", settings={"baseline": "moving_average"}),
    Trial("reinforce", "lstm", "rlseq/Oracle-v0", {"baseline": "regression"}),
    Trial("reinforce", "seq2seq", "rlseq/Reverse-v0", {"baseline": "greedy_corrected"}),
    Trial("reinforce", "transformer", device="cuda:1"),
    Trial("scst", "transformer"),
    Trial("mixer", "lstm"),
    Trial("ppo", "seq2seq"),
    Trial("trpo"),
    Trial("dqn"),
    Trial("es"),
    Trial("dagger"),
    Trial("adversarial", memory=16),
    Trial("rankgan", settings={"g": 2}),
]
GRAPHS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "seq2seq in bfloat16": {"autocast": torch.bfloat16},
    "transformer in bfloat16 on cuda:1": {"autocast": torch.bfloat16, "device": "cuda:1"},
}


def broken() -> dict[str, Any]:
    """Return the error of an update of PPO whose advantages are no numbers, and how far the weights moved."""
    env, agent = Trial("ppo", settings={"scale": "none"}).made()
    batch = agent.collect(env)
    agent.update(batch)
    before = [on_host(p).clone() for p in agent.policy.parameters()]
    try:
        computed(agent, lambda: agent.update(replace(batch, rewards=batch.rewards * float("nan"))))
        error = "none"
    except RuntimeError as found:
        error = str(found).partition(";")[0]
    moved = max(
        float((on_host(p) - b).abs().max()) for p, b in zip(agent.policy.parameters(), before, strict=True)
    )
    return {"error": error, "moved": moved}


def gpu_script() -> dict[str, Any]:
    """Return what `benchmarks/gpu.py` measures with tiny sizes, without other libraries."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import gpu
    import oracle
    import throughput

    throughput.SIZES, throughput.V, throughput.T = {"lstm": {"hidden": 4, "embedding": 4}}, 50, 4
    profile = replace(oracle.PROFILES["full"], evaluated=4)
    sizes = gpu.Sizes((2,), 1, False, 2, 1, (20,), profile, ("oracle",))
    saved: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        gpu.PARTS["seqgan"] = partial(gpu.seqgan, folder=Path(folder))
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            found: dict[str, Any] = gpu.measured([*gpu.PARTS], 10, sizes, saved.append)
    return {**found, "saved": len(saved)}


def main() -> None:
    """Print all answers."""
    cuda.install()
    graphs = {name: asdict(captured(name.split()[0], **how)) for name, how in GRAPHS.items()}
    found = {"trials": answers(TRIALS), "graphs": graphs, "broken": broken(), "gpu": gpu_script()}
    rewards = {" ".join(which): reward_on_the_device(*which) for which in REWARDS}
    json.dump({**found, "beside": beside_the_step(), "rewards": rewards}, sys.stdout)


if __name__ == "__main__":
    main()
