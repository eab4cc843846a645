"""A side by side with TRL and stable-baselines3 at equal work, on processors.

    python benchmarks/peers.py [--seeds 3] [--updates 40]

TRL: GRPO and RLOO on one small GPT-2 from a configuration. Model, initial weights, prompts, reward, batch,
group, learning rate, optimiser, clipping and precision are the same for both libraries; each samples with its
own engine and learns with its own loss. A text is paid the share of its 16 places that hold even words. rlseq
runs with its default settings and with `compile="rollout"`. Each runs in a process of its own on one thread,
and all at the same time, so that what else the machine does falls on all. Times are CPU seconds of a process:
tokens per second are those of whole updates (sampling, reward, learning) but the first, in which code is
compiled; seconds to a reward count it. Memory is the peak of the process less what it had when the libraries
were imported.

stable-baselines3: PPO with its default settings but for those named in `SB3`, on rlseq/Reverse-v0 through
`rlseq.sb3`, beside PPO of rlseq at the same number of tokens.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import record
import torch
from scipy.stats import t as student
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import rlseq
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.vocab import Vocab

WORDS, PROMPT, TOKENS, PROMPTS = 1024, 8, 16, 256
ROWS, SAMPLES, RATE = 64, 8, 2e-3
EOS = 1
REACHED = 0.7  # the reward to which seconds are counted
MODEL: dict[str, Any] = {
    "vocab_size": WORDS, "n_positions": 64, "n_embd": 128, "n_layer": 2, "n_head": 4, "bos_token_id": 0,
    "eos_token_id": EOS, "pad_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
OURS: dict[str, dict[str, Any]] = {"grpo": {"kl": 0.0}, "rloo": {}}
COMPILED: dict[str, Any] = {"compile": "rollout"}
SB3: dict[str, Any] = {
    "task": "rlseq/Reverse-v0", "options": {"length": 4, "vocab_size": 8}, "rows": 64, "tokens": 10_000,
    "lr": 1e-3,
}  # fmt: skip


def model_of(seed: int) -> Any:
    """Return the model with the initial weights of a seed."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**MODEL))


def prompts() -> Tensor:
    """Return the prompts, `[PROMPTS, PROMPT]`."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(2, WORDS, (PROMPTS, PROMPT), generator=draw)


def paid(tokens: Tensor, mask: Tensor, context: Any = None) -> Tensor:
    """Return the share of the places of a text that hold even words, `[B]`."""
    return ((tokens % 2 == 0) & mask).sum(1) / TOKENS


class Even(SequenceEnv):
    """The task for rlseq."""

    size = PROMPTS

    def __init__(self, **options: Any) -> None:
        vocab = Vocab(tuple(f"w{i}" for i in range(WORDS)), eos=EOS)
        source = Vocab(vocab.words, eos=EOS, pad=WORDS)
        super().__init__(
            vocab=vocab, max_len=TOKENS, reward=paid, items={"source": prompts()},
            source_vocab=source, **options,
        )  # fmt: skip


Run = dict[str, Any]  # rewards, tokens and CPU seconds after each update, and the peak of memory


def ours(algorithm: str, seed: int, updates: int, **settings: Any) -> Run:
    """Train with rlseq."""
    model = model_of(seed)
    env = Even(num_envs=ROWS, seed=seed)
    policy = rlseq.make_policy("hf", env, model=model)
    agent = rlseq.make_agent(algorithm, policy, samples=SAMPLES, lr=RATE, **OURS[algorithm], **settings)
    return learned(agent, env, lambda run: len(run["tokens"]) == updates)


def learned(agent: Any, env: Any, done: Callable[[Run], bool]) -> Run:
    """Train with rlseq until a run is done."""
    run: Run = {"rewards": [], "tokens": [], "seconds": []}
    start = time.process_time()
    while not done(run):
        batch = agent.collect(env)
        agent.update(batch)
        run["seconds"].append(time.process_time() - start)
        run["rewards"].append(float(batch.returns.mean()))
        run["tokens"].append(int(batch.mask.sum()))
    return run


def trl(algorithm: str, seed: int, updates: int) -> Run:
    """Train with TRL."""
    from datasets import arrow_dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    arrow_dataset.generate_fingerprint = lambda dataset: "0"  # which fails with some versions of dill
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=f"w{EOS}", pad_token="w0", unk_token="w2"
    )
    data = [{"prompt": " ".join(f"w{i}" for i in row)} for row in prompts().tolist()]
    rewards: list[float] = []
    tokens: list[int] = []
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *given: Any, **named: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, *given: Any, **named: Any) -> None:
            seconds.append(time.process_time() - self.start)

    def reward(completion_ids: list[list[int]], **named: Any) -> list[float]:
        rows = [torch.tensor(ids[:TOKENS]) for ids in completion_ids]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
        found = paid(padded, mask)
        rewards.append(float(found.mean()))
        tokens.append(int(mask.sum()))
        return found.tolist()

    config, trainer = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}[algorithm]
    with tempfile.TemporaryDirectory() as folder:
        settings = config(output_dir=folder, max_steps=updates, seed=seed, **TRL, **OF_TRL[algorithm])
        made = trainer(
            model=model_of(seed), reward_funcs=reward, args=settings, processing_class=tokenizer,
            train_dataset=arrow_dataset.Dataset.from_list(data), callbacks=[Clock()],
        )  # fmt: skip
        made.train()
    return {"rewards": rewards, "tokens": tokens, "seconds": seconds}


# What TRL needs to do the same work, and no more: no reference model, no logging, one step for each batch.
TRL: dict[str, Any] = {
    "per_device_train_batch_size": ROWS, "num_generations": SAMPLES, "max_completion_length": TOKENS,
    "steps_per_generation": 1, "beta": 0.0, "learning_rate": RATE, "lr_scheduler_type": "constant",
    "weight_decay": 0.0, "max_grad_norm": 1.0, "use_cpu": True, "bf16": False, "report_to": [],
    "gradient_checkpointing": False, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
    "top_k": 0, "optim": "adamw_torch_fused",
}  # fmt: skip
OF_TRL: dict[str, dict[str, Any]] = {"grpo": {"loss_type": "grpo", "scale_rewards": "group"}, "rloo": {}}


def rlseq_ppo(algorithm: str, seed: int, updates: int) -> Run:
    """Train PPO of rlseq on a token task."""
    env = rlseq.make(SB3["task"], num_envs=SB3["rows"], seed=seed, **SB3["options"])
    policy = rlseq.make_policy("lstm", env, hidden=64, embedding=32, value=True, seed=seed)
    agent = rlseq.make_agent("ppo", policy, lr=SB3["lr"])
    return learned(agent, env, lambda run: sum(run["tokens"]) >= SB3["tokens"])


def sb3_ppo(algorithm: str, seed: int, updates: int) -> Run:
    """Train PPO of stable-baselines3 on the same task."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    env = rlseq.sb3.as_vec_env(rlseq.make(SB3["task"], num_envs=SB3["rows"], seed=seed, **SB3["options"]))
    steps = SB3["options"]["length"] + 1  # a text for each row
    rewards: list[float] = []
    tokens: list[int] = []
    seconds: list[float] = []

    class Clock(BaseCallback):
        def _on_training_start(self) -> None:
            self.start = time.process_time()

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            done: Any = self.model.ep_info_buffer or ()
            rewards.append(mean(float(each["r"]) for each in done) if done else 0.0)
            tokens.append(SB3["rows"] * steps)
            seconds.append(time.process_time() - self.start)

    reader = {"features_extractor_class": rlseq.sb3.TokenExtractor}
    model = PPO(
        "MultiInputPolicy", env, n_steps=steps, batch_size=SB3["rows"] * steps // 4, learning_rate=SB3["lr"],
        gamma=1.0, ent_coef=0.0, seed=seed, policy_kwargs=reader,
    )  # fmt: skip
    model.learn(SB3["tokens"], callback=Clock())
    return {"rewards": rewards, "tokens": tokens, "seconds": seconds}


LIBRARIES: dict[str, Callable[[str, int, int], Run]] = {
    "rlseq": ours, "rlseq-compiled": partial(ours, **COMPILED), "trl": trl,
    "rlseq-ppo": rlseq_ppo, "sb3-ppo": sb3_ppo,
}  # fmt: skip


def memory() -> float:
    """Return the largest memory of this process so far, in MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def side_by_side(
    libraries: Sequence[str], algorithms: Sequence[str], seeds: int, updates: int
) -> dict[str, Any]:
    """Return the runs of several libraries, each in a process of its own, at the same time."""
    words = ["--seeds", str(seeds), "--updates", str(updates), "--algorithms", *algorithms]
    commands = {
        name: [sys.executable, "-W", "ignore", __file__, "--only", name, *words] for name in libraries
    }
    started = {
        name: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    found = {}
    for name, process in started.items():
        out, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{name} failed:\n{errors[-2000:]}")
        found[name] = json.loads(out.splitlines()[-1])
    return found


def summary(run: Run) -> Run:
    """Return a run with its tokens per second, its last reward, and the seconds to a reward."""
    rewards, tokens, seconds = run["rewards"], run["tokens"], run["seconds"]
    smooth = [mean(rewards[max(0, i - 4) : i + 1]) for i in range(len(rewards))]
    at = next((i for i, each in enumerate(smooth) if each >= REACHED), None)
    return {
        "per_second": sum(tokens[1:]) / (seconds[-1] - seconds[0]),  # the first update warms up
        "last": mean(rewards[-10:]),
        "seconds_to_reward": None if at is None else seconds[at],
        "curve": [round(mean(rewards[i : i + 5]), 4) for i in range(0, len(rewards), 5)],
        "tokens": sum(tokens),
        "seconds": seconds[-1],
    }


def interval(values: Sequence[float]) -> list[float]:
    """Return the mean and the ends of its 95 % interval (Student's t)."""
    middle = mean(values)
    off = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return [round(each, 4) for each in (middle, middle - off, middle + off)]


def compared(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return the runs of libraries side by side, with their speeds over that of the last, seed by seed."""
    last = runs[[*runs][-1]]
    return {name: described(own, last) for name, own in runs.items()}


def described(own: Sequence[Run], other: Sequence[Run]) -> dict[str, Any]:
    """Return the runs of a library, and their speeds over those of another."""
    ratios = [a["per_second"] / b["per_second"] for a, b in zip(own, other, strict=True)]
    curves = zip(*(run["curve"] for run in own), strict=True)
    return {
        "speed_ratio": median(ratios),
        "speed_ratios": ratios,
        "per_second": median(run["per_second"] for run in own),
        "last": interval([run["last"] for run in own]),
        "curve": [interval(values) for values in curves],
        "seconds_to_reward": [run["seconds_to_reward"] for run in own],
        "runs": own,
    }


def main() -> None:
    """Measure, and write results/peers.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--only", choices=LIBRARIES)
    parser.add_argument("--algorithms", nargs="+", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only:
        only(given.only, given.algorithms, given.seeds, given.updates)
        return
    results: dict[str, Any] = {
        "versions": {name: version(name) for name in ("trl", "transformers", "stable-baselines3", "torch")},
        "settings": {
            "model": MODEL,
            "trl": TRL,
            "of_trl": OF_TRL,
            "rlseq": OURS,
            "rlseq-compiled": COMPILED,
            "sb3": SB3,
        },
        "work": {
            "rows": ROWS,
            "samples": SAMPLES,
            "tokens": TOKENS,
            "prompt": PROMPT,
            "updates": given.updates,
        },
        "reached": REACHED,
    }
    groups = {("rlseq", "rlseq-compiled", "trl"): [*OURS], ("rlseq-ppo", "sb3-ppo"): ["ppo"]}
    for libraries, algorithms in groups.items():
        runs = side_by_side(libraries, algorithms, given.seeds, given.updates)
        for algorithm in algorithms:
            found = compared({name: runs[name][algorithm] for name in libraries})
            results[algorithm] = {name: {**one, "mb": runs[name]["mb"]} for name, one in found.items()}
            print(algorithm, {name: one["speed_ratios"] for name, one in found.items()}, flush=True)
        print(record.write("peers", results))


def only(library: str, algorithms: Sequence[str], seeds: int, updates: int) -> None:
    """Run one library, and print its runs as JSON."""
    if library == "trl":
        importlib.import_module("datasets")
        importlib.import_module("trl")
    before, run = memory(), LIBRARIES[library]
    found: dict[str, Any] = {
        name: [summary(run(name, seed, updates)) for seed in range(seeds)] for name in algorithms
    }
    print(json.dumps({**found, "mb": memory() - before}))


if __name__ == "__main__":
    main()
