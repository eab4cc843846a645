"""The speed at which the engine writes, beside alternatives, in one run on one machine.

    python benchmarks/throughput.py [--device cuda] [--rows 64 512 4096] [--repeats 5] [--threads 2]

Two models on SeqGAN's synthetic task (V 5,000, T 20, no EOS; the reward here is a constant, so that only
writing is measured): an LSTM (embedding and hidden 32) and a transformer (width 128, 4 layers, 4 heads).
Every line is a ratio of medians over repeats that are interleaved, so that a machine that slows down slows
all of them. Compared are, in tokens per second:

* a plain loop: the same policy, `torch.multinomial` on its softmax, the log-probability from `log_softmax`;
* stable-baselines3's PPO and A2C collecting on the same task over the bridge, with a reader of this width;
* `transformers`' `generate` with sampling, a GPT-2 of the same size (skipped where it is not installed);
* the floor: one teacher-forced `evaluate` of the same tokens, without gradients;
* on a GPU also what its arithmetic and its memory allow, both measured in this run (`hardware`).

The rollout is measured as it is, compiled (`compile=True`: fused steps on a processor, a captured graph on a
GPU), and compiled with networks in bfloat16 (`autocast=torch.bfloat16`), where the floor is in bfloat16, too;
what compiling took is reported beside it.

Then: completing every prefix (16 × 19 × 64 rows) against one prefix at a time, with our engine and with the
plain loop; twice the length; and where the time of a training step goes, with metrics and with the oracle's
own log-likelihood as the reward.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import record
import torch
from torch import Tensor

import rlseq
from rlseq.engine.rollout import evaluate_actions
from rlseq.types import Context, Rollout
from rlseq.utils.modules import eval_mode

Run = Callable[[], Any]
V, T = 5000, 20
OURS = ("rollout", "compiled", "bfloat16")
FLOORS = {"rollout": "floor", "compiled": "floor", "bfloat16": "bfloat16 floor"}
SIZES: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 32, "embedding": 32},
    "transformer": {"hidden": 128, "layers": 4, "heads": 4},
}


def nothing(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """A reward that costs nothing."""
    return torch.ones(len(tokens), device=tokens.device)


def medians(runs: dict[str, Run], repeats: int, device: str) -> dict[str, float]:
    """Seconds of every run, the median of interleaved repeats after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: sorted(times)[len(times) // 2] for name, times in seconds.items()}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def setting(name: str, rows: int, device: str, length: int = T, **options: Any) -> tuple[Any, Any]:
    """The task and a policy."""
    options = {"reward": nothing, "references": 64, **options}
    env = rlseq.make("rlseq/Oracle-v0", num_envs=rows, device=device, length=length, **options)
    return env, rlseq.make_policy(name, env, **SIZES[name])


@torch.no_grad()
def plain_loop(policy: Any, env: Any, prefix: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Write texts by the loop that one would write first; a given prefix is read, and not sampled."""
    with eval_mode(policy):
        state = policy.start(env.begin())
        token = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        tokens, log_probs = [], []
        for t in range(env.max_len):
            logits, state = policy.step(token, state)
            if prefix is not None and t < prefix.shape[1]:
                token = prefix[:, t]
                continue
            token = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
            tokens.append(token)
            log_probs.append(logits.log_softmax(-1).gather(1, token.unsqueeze(1)).squeeze(1))
        return torch.stack(tokens, 1), torch.stack(log_probs, 1)


def collecting(agent: str, rows: int, device: str) -> Run:
    """One collection of T steps by a stock agent."""
    import stable_baselines3
    from stable_baselines3.common.utils import configure_logger

    env = rlseq.sb3.as_vec_env(setting("lstm", rows, device)[0])
    reader = {
        "features_extractor_class": rlseq.sb3.TokenExtractor,
        "features_extractor_kwargs": {"features_dim": 32, "embedding": 32},
        "net_arch": [],
    }
    cls = getattr(stable_baselines3, agent)
    model = cls("MultiInputPolicy", env, policy_kwargs=reader, n_steps=T, device=device)
    _, callback = model._setup_learn(10**9, None)
    model.set_logger(configure_logger(0))

    def run() -> None:
        model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=T)

    return run


def generating(rows: int, device: str) -> Run | None:
    """`transformers`' own generation with a model of the transformer's size."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=V, n_positions=T + 1, n_embd=128, n_layer=4, n_head=4)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, None, 0
    model: Any = GPT2LMHeadModel(config)
    model = model.to(device).eval()
    prompt = torch.zeros(rows, 1, dtype=torch.int64, device=device)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": T, "min_new_tokens": T, "use_cache": True}

    def run() -> None:
        with torch.no_grad():
            written: Any = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
            assert written.shape[1] == T + 1

    return run


def hardware(policy: Any, rows: int) -> float:
    """Seconds that T steps take at least: 2 FLOP per weight and row, and every weight and logit moved.

    Peaks are those of a large product and of a large copy on this GPU; logits are written and read once.
    """
    a = torch.randn(8192, 8192, device="cuda")
    big = torch.zeros(1 << 28, device="cuda")
    other = torch.empty_like(big)
    runs = {"product": lambda: a @ a, "copy": lambda: other.copy_(big)}
    seconds = medians(runs, 5, "cuda")
    flops, bytes_moved = 2 * 8192**3 / seconds["product"], 8 * len(big) / seconds["copy"]
    tables = {p for m in policy.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    weights = sum(p.numel() for p in policy.parameters() if p not in tables)
    return float(T * max(2 * weights * rows / flops, 4 * (weights + 2 * rows * V) / bytes_moved))


def one_model(name: str, rows: int, device: str, repeats: int, others: bool = True) -> dict[str, Any]:
    """Tokens per second of everything that can write with this model, other libraries among them or not."""
    env, policy = setting(name, rows, device)
    batch = rlseq.rollout(policy, env)

    def floor(batch: Rollout) -> None:
        with torch.no_grad():
            evaluate_actions(policy, batch)

    low = rlseq.rollout(policy, env, autocast=torch.bfloat16)
    start = time.perf_counter()
    rlseq.rollout(policy, env, compile=True)
    _wait(device)
    compiling = time.perf_counter() - start
    runs: dict[str, Run | None] = {
        "rollout": lambda: rlseq.rollout(policy, env),
        "compiled": lambda: rlseq.rollout(policy, env, compile=True),
        "bfloat16": lambda: rlseq.rollout(policy, env, compile=True, autocast=torch.bfloat16),
        "plain loop": lambda: plain_loop(policy, env),
        "floor": lambda: floor(batch),
        "bfloat16 floor": lambda: floor(low),
    }
    if others and name == "lstm":
        runs |= {f"sb3 {agent}": collecting(agent, rows, device) for agent in ("PPO", "A2C")}
    elif others:
        runs["transformers.generate"] = generating(rows, device)
    seconds = medians({name: run for name, run in runs.items() if run is not None}, repeats, device)
    if others and device == "cuda":
        seconds["hardware"] = hardware(policy, rows)
    tokens = rows * T
    return {
        "model": name,
        "rows": rows,
        "compiling": round(compiling, 1),
        "tokens_per_second": {name: round(tokens / s) for name, s in seconds.items()},
        **{f"{ours}_divided_by": _ratios(ours, seconds) for ours in OURS},
    }


def _ratios(ours: str, seconds: dict[str, float]) -> dict[str, float]:
    """The seconds of others over ours; the floor is that of the same precision."""
    others = [name for name in seconds if name not in (*OURS, *FLOORS.values())]
    times = {"floor": seconds[FLOORS[ours]], **{name: seconds[name] for name in others}}
    return {name: round(s / seconds[ours], 2) for name, s in times.items()}


def completing(device: str, repeats: int, rows: int = 64, samples: int = 16) -> dict[str, Any]:
    """Every prefix at once from copied states, against one prefix at a time from the start."""
    env, policy = setting("lstm", rows, device)
    batch = rlseq.rollout(policy, env)
    wide, _ = setting("lstm", rows * samples, device)
    index = batch.context["index"].repeat_interleave(samples)

    def one_at_a_time() -> None:
        for t in range(1, T):
            rlseq.rollout(
                policy, wide, forced=batch.actions[:, :t].repeat_interleave(samples, 0), index=index
            )

    def plainly() -> None:
        for t in range(1, T):
            plain_loop(policy, wide, batch.actions[:, :t].repeat_interleave(samples, 0))

    runs: dict[str, Run] = {
        "complete": lambda: rlseq.complete(policy, env, batch, samples=samples),
        "complete, compiled": lambda: rlseq.complete(policy, env, batch, samples=samples, compile=True),
        "rollout, one prefix at a time": one_at_a_time,
        "plain loop, one prefix at a time": plainly,
    }
    seconds = medians(runs, repeats, device)
    return {
        "rows": rows * samples * (T - 1),
        "seconds": {name: round(s, 4) for name, s in seconds.items()},
        "divided_by_complete": {name: round(s / seconds["complete"], 2) for name, s in seconds.items()},
    }


def doubling(device: str, repeats: int, rows: int = 512) -> dict[str, Any]:
    """Cost of a rollout of 2T over one of T."""
    found: dict[str, Any] = {"rows": rows}
    for name, compile in (("rollout", False), ("compiled", True)):
        runs: dict[str, Run] = {}
        for length in (T, 2 * T):
            env, policy = setting("lstm", rows, device, length)
            runs[str(length)] = partial(rlseq.rollout, policy, env, compile=compile)
        seconds = medians(runs, repeats, device)
        found[name] = round(seconds[str(2 * T)] / seconds[str(T)], 3)
    return found


def training_step(name: str, reward: str, device: str, repeats: int, rows: int = 512) -> dict[str, Any]:
    """Return the time of each part of a step; the reward is the oracle's likelihood, or a metric."""
    env, policy = setting(name, rows, device, references=10_000)
    texts = env.items["references"].tolist()
    metrics = {
        "BLEU": rlseq.metrics.BLEU,
        "CIDEr-D": rlseq.metrics.CIDErD,
        "edit": rlseq.metrics.EditDistance,
    }
    env.parts = {reward: metrics[reward](texts).to(device) if reward in metrics else env.log_likelihood}
    agent = rlseq.make_agent("reinforce", policy)
    batch = agent.collect(env)
    parts = env.parts

    def writing() -> None:
        env.parts = {"nothing": nothing}
        agent.collect(env)
        env.parts = parts

    def backward() -> None:
        agent.optimizer.zero_grad()
        agent.loss(batch)[0].backward()  # type: ignore[no-untyped-call]

    runs: dict[str, Run] = {
        "rollout": writing,
        "reward": lambda: env.reward_parts(batch.actions, batch.mask, batch.context),
        "evaluate and backward": backward,
        "optimiser": agent.optimizer.step,
    }
    seconds = medians(runs, repeats, device)
    total = sum(seconds.values())
    return {"model": name, "judge": reward, "rows": rows, "seconds": round(total, 4)} | {
        part: round(s / total, 3) for part, s in seconds.items()
    }


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"writing": []}
    for name in SIZES:
        for rows in options.rows:
            results["writing"].append(one_model(name, rows, options.device, options.repeats))
            print(results["writing"][-1], flush=True)
    results["completing"] = completing(options.device, options.repeats)
    results["doubling"] = doubling(options.device, options.repeats)
    results["training_step"] = [
        training_step(name, reward, options.device, options.repeats)
        for name in SIZES
        for reward in ("BLEU", "CIDEr-D", "edit", "log-likelihood")
    ]
    for part in ("completing", "doubling", "training_step"):
        print(part, results[part], flush=True)
    machine = (
        torch.cuda.get_device_name().replace(" ", "-") if options.device == "cuda" else platform.machine()
    )
    print(record.write(f"throughput-{machine.lower()}", results))


if __name__ == "__main__":
    main()
