"""Style transfer without pairs: what each reward teaches, and the code that reconstruction alone invents.

    OMP_NUM_THREADS=1 python benchmarks/style.py [--seconds 12]

On the default data of `rlseq/Style-v0` a seq2seq learns by likelihood from retrieved texts, and goes on: by
likelihood, by the task's reward, by a reward that is always the same, by reconstruction alone and by both.
One row starts from random weights. Every row has as many CPU seconds. Tested greedily on all held-out texts;
one seed.
"""

from __future__ import annotations

import argparse
from typing import Any

import record
import torch
from recipes.seeds import watched

import rlseq
from rlseq.engine.evaluation import evaluate_texts
from rlseq.metrics.algebra import Constant

ID = "rlseq/Style-v0"
FIGURES = ("style", "fluency", "content")
WAYS: dict[str, dict[str, Any]] = {
    "likelihood, longer": {"name": "mle", "lr": 4e-3},
    "constant reward": {"name": "rloo", "lr": 1e-3},
    "task": {"name": "rloo", "lr": 1e-3},
    "task + reconstruction": {"name": "dual", "lr": 1e-3},
    "reconstruction": {"name": "dual", "lr": 1e-3, "task": 0.0},
    "reconstruction, from random weights": {"name": "dual", "lr": 1e-3, "task": 0.0},
}


def main() -> None:
    """Learn, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12, help="of each row")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    start = made()
    results = {"copy of the source": copies(), "retrieved": retrieved()}
    watched(rlseq.make_agent("mle", start, lr=4e-3), rlseq.make(ID, num_envs=64), seconds / 2)
    results["likelihood"] = tested(start)
    for way, hyper in WAYS.items():
        policy = made()
        if "random" not in way:
            policy.load_state_dict(start.state_dict())
        reward: dict[str, Any] = {"reward": Constant()} if way == "constant reward" else {}
        agent = rlseq.make_agent(**hyper, policy=policy)
        found = watched(agent, rlseq.make(ID, num_envs=64, **reward), seconds)
        results[way] = {**tested(policy), **found}
        print(way, results[way], flush=True)
    print(record.write("style", {"seconds_of_each_row": seconds, "ways": results}))


def made() -> Any:
    """Return a policy with random weights."""
    return rlseq.make_policy("seq2seq", rlseq.make(ID, num_envs=1), hidden=64, embedding=32)


def tested(policy: Any) -> dict[str, Any]:
    """Figures of greedy texts about held-out sources, and some of them."""
    env = rlseq.make(ID, num_envs=64, split="test")
    found = evaluate_texts(policy, env)
    lines, means = found.lines(env), found.means()
    different = len({line["text"] for line in lines}) / len(lines)
    figures = {name: round(means[name], 4) for name in FIGURES}
    texts = [[line["source"], line["text"]] for line in lines[:3]]
    return {**figures, "different": round(different, 4), "texts": texts}


def copies() -> dict[str, Any]:
    """Figures of the sources themselves."""
    env = rlseq.make(ID, num_envs=64, split="test")
    context = env.begin(index=torch.arange(min(64, env.size)).repeat(64)[:64])
    source = torch.nn.functional.pad(context["source"], (0, 1), value=0)
    mask = torch.arange(source.shape[1]) <= (context["source"] > 0).sum(1, keepdim=True)
    return judged(env, source, mask, context)


def retrieved() -> dict[str, Any]:
    """Figures of the texts that are most like the sources, from which likelihood learns."""
    env = rlseq.make(ID, num_envs=64, split="test")
    context = env.begin(index=torch.arange(min(64, env.size)).repeat(64)[:64])
    tokens, lengths = context["references"][:, 0], context["reference_lengths"][:, 0]
    return judged(env, tokens, torch.arange(tokens.shape[1]) < lengths.unsqueeze(1), context)


def judged(env: Any, tokens: torch.Tensor, mask: torch.Tensor, context: Any) -> dict[str, Any]:
    """Return the mean figures of given texts."""
    means = {name: float(env.metrics[name](tokens, mask, context).mean()) for name in FIGURES}
    return {name: round(value, 4) for name, value in means.items()}


if __name__ == "__main__":
    main()
