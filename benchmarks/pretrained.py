"""Speed and memory of pretrained models as policies, beside what else could be used, in one run.

    python benchmarks/pretrained.py [--threads 2] [--rows 16 64] [--tokens 32] [--repeats 5] [--device cuda]

Random weights, in the sizes of t5-small (60 M parameters) and of GPT-2 small (124 M), float32:

* seconds of `generate(do_sample=True)` of transformers, of `rlseq.rollout`, and of a compiled rollout.
  No text ends early: the end is forbidden to both, so that all write the same number of tokens. Repeats are
  interleaved, and ratios are of medians;
* one whole update of GRPO, sampling included, of 64 texts of 64 tokens in groups of 8, V = 32,128, on a GPT-2
  of 4 layers and width 256: seconds and peak memory of the process, of rlseq and of TRL's `GRPOTrainer`
  (skipped where TRL is not installed). Each runs in a process of its own.

Times are those of the processor (`time.process_time`) divided by the threads' number where `--cpu-time` is
given, for machines that do other work; else of the clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import record
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

import rlseq
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.vocab import Vocab

SOURCES, SOURCE_TOKENS = 256, 32
GRPO: dict[str, int] = {"rows": 64, "samples": 8, "tokens": 64, "words": 32128, "prompt": 16, "updates": 4}
SIZES: dict[str, tuple[Any, Any]] = {
    "t5-small": (
        T5ForConditionalGeneration,
        T5Config(
            vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        ),
    ),
    "gpt2-small": (GPT2LMHeadModel, GPT2Config(bos_token_id=0, eos_token_id=1, pad_token_id=0)),
    "gpt2-4-layers": (
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=GRPO["words"], n_embd=256, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=1,
            pad_token_id=0,
        ),
    ),
}  # fmt: skip


class Unending(SequenceEnv):
    """A task without an end: neither the end nor padding is ever legal."""

    size = SOURCES

    def __init__(self, words: int, tokens: int, read: int, **options: Any) -> None:
        vocab = Vocab(tuple(f"w{i}" for i in range(words)), eos=1)
        draw = torch.Generator().manual_seed(0)
        self.read_ids = torch.randint(2, words, (SOURCES, read), generator=draw)
        source_vocab = Vocab(vocab.words, eos=1, pad=words)
        items = {"source": self.read_ids[:1]}
        super().__init__(
            vocab=vocab, max_len=tokens, reward=variety, items=items, source_vocab=source_vocab, **options
        )
        self.read_ids = self.read_ids.to(self.device)
        self.allowed_words = torch.ones(words, dtype=torch.bool, device=self.device)
        self.allowed_words[:2] = False

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Return the sources."""
        return {"source": self.read_ids[index]}

    def legal(self) -> Tensor:
        """Return all words but the end."""
        return self.allowed_words


def variety(tokens: Tensor, mask: Tensor, context: Mapping[str, Tensor]) -> Tensor:
    """Return the share of different words."""
    ordered = tokens.sort(1).values
    return 1 - (ordered[:, 1:] == ordered[:, :-1]).float().mean(1)


def model_of(name: str, device: str = "cpu") -> Any:
    """Return a model with random weights."""
    cls, config = SIZES[name]
    torch.manual_seed(0)
    return cls(config).eval().to(device)


def synchronized(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Return the seconds of a run."""
    start = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def written(name: str, rows: int, tokens: int, repeats: int, device: str, clock: Any) -> dict[str, Any]:
    """Compare what writes texts: medians of interleaved repeats, after one that is not counted."""
    peer, model = model_of(name, device), model_of(name, device)
    env = Unending(model.config.vocab_size, tokens, SOURCE_TOKENS, num_envs=rows, device=device, seed=0)
    policy = rlseq.make_policy("hf", env, model=model)
    sources = env.read_ids[:rows]

    def generate() -> None:
        with torch.no_grad():
            peer.generate(
                input_ids=sources, attention_mask=torch.ones_like(sources), do_sample=True, top_k=0,
                max_new_tokens=tokens, min_new_tokens=tokens, suppress_tokens=[0, 1],
            )  # fmt: skip

    runs: dict[str, Callable[[], Any]] = {
        "generate": generate,
        "rollout": lambda: rlseq.rollout(policy, env),
        "compiled": lambda: rlseq.rollout(policy, env, compile=True),
    }
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for repeat in range(repeats + 1):
        for key, run in runs.items():
            spent = synchronized(run, clock)
            if repeat:
                seconds[key].append(spent)
    found = {key: median(values) for key, values in seconds.items()}
    print(name, rows, {key: round(value, 3) for key, value in found.items()}, flush=True)
    return {
        "model": name,
        "rows": rows,
        "tokens": tokens,
        "seconds": found,
        "ratio": {key: found["generate"] / found[key] for key in ("rollout", "compiled")},
    }


# ── a whole update, each library in a process of its own ─────────────────────────────────────────────────


def ours(device: str, clock: Any) -> list[float]:
    """Return the seconds of each update of rlseq's GRPO."""
    model = model_of("gpt2-4-layers", device)
    env = Unending(
        GRPO["words"], GRPO["tokens"], GRPO["prompt"], num_envs=GRPO["rows"], device=device, seed=0
    )
    policy = rlseq.make_policy("hf", env, model=model)
    agent = rlseq.make_agent("grpo", policy, samples=GRPO["samples"], lr=1e-6)
    return [synchronized(lambda: agent.update(agent.collect(env)), clock) for _ in range(GRPO["updates"])]


def trl(device: str, clock: Any) -> list[float]:
    """Return the seconds of each update of TRL's GRPO."""
    from datasets import arrow_dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    arrow_dataset.generate_fingerprint = lambda dataset: "0"  # which fails with some versions of dill
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(GRPO["words"])}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="w1", pad_token="w0", unk_token="w2"
    )
    env = Unending(GRPO["words"], GRPO["tokens"], GRPO["prompt"])
    prompts = [{"prompt": " ".join(f"w{i}" for i in row)} for row in env.read_ids.tolist()]
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *given: Any, **named: Any) -> None:
            self.start = clock()

        def on_step_end(self, *given: Any, **named: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(clock() - self.start)

    def reward(completions: list[str], **named: Any) -> list[float]:
        return [len(set(text.split())) / GRPO["tokens"] for text in completions]

    settings = GRPOConfig(
        output_dir="/dev/null" if not Path("runs").exists() else "runs/trl",
        per_device_train_batch_size=GRPO["rows"],
        num_generations=GRPO["samples"],
        max_completion_length=GRPO["tokens"],
        steps_per_generation=1,
        beta=0.0,
        max_steps=GRPO["updates"],
        use_cpu=device == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        generation_kwargs={"min_new_tokens": GRPO["tokens"], "suppress_tokens": [0, 1]},
    )
    trainer = GRPOTrainer(
        model=model_of("gpt2-4-layers", device), reward_funcs=reward, args=settings,
        train_dataset=arrow_dataset.Dataset.from_list(prompts), processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return seconds


LIBRARIES: dict[str, Callable[..., list[float]]] = {"rlseq": ours, "trl": trl}


def update_of(library: str, arguments: list[str]) -> dict[str, Any]:
    """Return the median seconds of an update and the peak of memory, of a process of its own."""
    command = [sys.executable, __file__, "--only", library, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{library} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(library, found, flush=True)
    return found


def peak() -> float:
    """Return the largest memory of this process so far, or of the GPU, in GB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()  # `getrusage` counts the parent's, too
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def main() -> None:
    """Measure, and write results/pretrained-….json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", choices=LIBRARIES)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    clock = time.process_time if given.cpu_time else time.perf_counter
    if given.only:
        before = peak()
        seconds = LIBRARIES[given.only](given.device, clock)
        print(json.dumps({"seconds": median(seconds[1:]), "peak_gb": peak(), "at_start_gb": before}))
        return
    texts = [
        written(name, rows, given.tokens, given.repeats, given.device, clock)
        for name in ("t5-small", "gpt2-small")
        for rows in given.rows
    ]
    passed_on = ["--threads", str(given.threads), "--device", given.device]
    passed_on += ["--cpu-time"] if given.cpu_time else []
    libraries = [name for name in LIBRARIES if name == "rlseq" or importlib.util.find_spec(name)]
    updates = {name: update_of(name, passed_on) for name in libraries}
    kind = "gpu" if given.device.startswith("cuda") else f"{given.threads}-threads"
    print(record.write(f"pretrained-{kind}", {"texts": texts, "grpo": GRPO, "updates": updates}))


if __name__ == "__main__":
    main()
