"""What padding costs where texts are scored: seconds per real token, with much padding and with none.

    python benchmarks/padding.py [--rounds 7]

256 texts as long as those of G2P, and one as long as makes 64 % of the places padding, which is what a policy
writes there after likelihood; and 256 texts that are all as long as the mean of these. Both are scored and
differentiated as in an update, with a source as long as the text but for its end, or a picture. Medians of
interleaved rounds; one thread; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import record
import torch
from torch import Tensor

import rlseq
from rlseq.engine.references import draw_references
from rlseq.engine.rollout import evaluate_actions
from rlseq.types import Rollout
from rlseq.utils.masks import last_of

ROWS, SHARE = 256, 0.64
POLICIES = ("lstm", "gru", "seq2seq", "transformer", "captioner")


def real_lengths() -> Tensor:
    """Return lengths of references of G2P, the longest of which makes the share of padding that is wanted."""
    lengths = draw_references(rlseq.make("rlseq/G2P-v0", num_envs=ROWS, seed=0)).lengths
    lengths[lengths.argmax()] = round(float(lengths.float().mean()) / (1 - SHARE))
    return lengths


def texts(env: Any, lengths: Tensor) -> Rollout:
    """Return texts of random words and given lengths, about sources of these lengths, or about pictures."""
    mask = torch.arange(env.max_len) < lengths.unsqueeze(1)
    actions = torch.randint(1, len(env.vocab), mask.shape)
    context = env.begin()
    if env.source_vocab is not None:
        source = torch.randint(1, len(env.source_vocab), mask[:, 1:].shape)
        context = {**context, "source": source.where(mask[:, 1:], env.source_vocab.pad)}
    nothing = torch.zeros(mask.shape)
    return Rollout(actions, mask, nothing, nothing, None, last_of(mask), None, context)


def seconds(policy: Any, batch: Rollout) -> float:
    """Return the seconds per real token of scoring and differentiating a batch."""
    began = time.process_time()
    (evaluate_actions(policy, batch).log_probs * batch.mask).sum().backward()  # type: ignore[no-untyped-call]
    return (time.process_time() - began) / int(batch.mask.sum())


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    uneven = real_lengths()
    lengths = {"none": torch.full_like(uneven, round(float(uneven.float().mean()))), "much": uneven}
    rows = {}
    for name in POLICIES:
        id, options = ("rlseq/Captions-v0", {"max_len": int(uneven.max())})
        if name != "captioner":
            id, options = "rlseq/Copy-v0", {"vocab_size": 40, "length": int(uneven.max()) - 1}
        env = rlseq.make(id, num_envs=ROWS, seed=0, **options)
        policy = rlseq.make_policy(name, env, hidden=256)
        batches = {kind: texts(env, each) for kind, each in lengths.items()}
        found = [{kind: seconds(policy, batch) for kind, batch in batches.items()} for _ in range(rounds + 1)]
        medians = {kind: 1e6 * statistics.median(each[kind] for each in found[1:]) for kind in batches}
        ratio = medians["much"] / medians["none"]
        rows[name] = {**{kind: round(value, 1) for kind, value in medians.items()}, "ratio": round(ratio, 2)}
        print(name, rows[name], flush=True)
    padding = 1 - float(uneven.float().mean()) / int(uneven.max())
    print(record.write("padding", {"share": round(padding, 3), "microseconds": rows}))


if __name__ == "__main__":
    main()
