"""Summaries without pairs: what a discriminator and a reconstructor add to likelihood on retrieved summaries.

    OMP_NUM_THREADS=1 python benchmarks/summaries.py [--seconds 12]

On the default data of `rlseq/Summary-v0` with `pairs=False`, a seq2seq learns by likelihood from summaries of
other texts, each the most similar one that training has, and goes on: by likelihood, by RLOO with a constant
reward, by `unpaired` with two step sizes, and by each half of its reward alone. Beside them are two rules,
the first sentence and the retrieved summary itself, and likelihood with pairs, from random weights and on all
texts. Every row has as many CPU seconds in all, half of them before it goes on. Tested greedily on all
held-out texts; one seed; the intervals are over texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import record
import torch
from recipes.seeds import watched

import rlseq
from rlseq.data.news import sentences_of
from rlseq.data.unpaired import nearest
from rlseq.engine.evaluation import evaluate_texts
from rlseq.metrics import Constant
from rlseq.metrics import evaluate as metrics_of
from rlseq.recipe.difference import difference

ID = "rlseq/Summary-v0"
SHOWN = 3
ROUNDS = {"pretraining": 8, "d": 1, "k": 1, "g": 20}  # of the discriminator
TEXTS, STEP = 200, 1e-3  # of a regeneration, and the step size of the discriminator
WAYS: dict[str, dict[str, Any]] = {
    "likelihood, longer": {"name": "mle", "lr": 4e-3},
    "constant reward": {"name": "rloo", "lr": 3e-4},
    "unpaired": {"name": "unpaired", "lr": 3e-4, **ROUNDS},
    "unpaired, larger steps": {"name": "unpaired", "lr": 1e-3, **ROUNDS},
    "reconstruction alone": {"name": "dual", "lr": 3e-4, "task": 0.0},
    "discriminator alone": {"name": "unpaired", "lr": 3e-4, "reconstruction": 0.0, **ROUNDS},
}
LONGER, PAIRS = "likelihood, longer", "likelihood with pairs"


def made() -> Any:
    """Return a policy with random weights."""
    return rlseq.make_policy("seq2seq", rlseq.make(ID, num_envs=1), hidden=64, embedding=32)


def written(policy: Any, env: Any) -> list[dict[str, Any]]:
    """Return the source, references and greedy text of every item."""
    return evaluate_texts(policy, env).lines(env)


def judged(texts: Sequence[str], items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ROUGE-L of every text, means, and the first texts."""
    pairs = list(zip(texts, [item["references"] for item in items], strict=True))
    scores = [float(metrics_of([text], [known], ["rouge_l"])["rouge_l"]) for text, known in pairs]
    return {
        "rouge_l": round(sum(scores) / len(scores), 4),
        "exact": round(sum(text in known for text, known in pairs) / len(pairs), 4),
        "words": round(sum(len(text.split()) for text in texts) / len(texts), 2),
        "different": round(len(set(texts)) / len(texts), 4),
        "texts": list(texts[:SHOWN]),
        "scores": scores,
    }


def learned(seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Learn in every way; return the figures of each, and the held-out items."""
    test = rlseq.make(ID, num_envs=64, split="test")

    def task(**options: Any) -> Any:
        return rlseq.make(ID, num_envs=64, seed=0, **options)

    start = made()
    items, known = written(start, test), written(start, task(pairs=False))
    sources, heap = [item["source"] for item in items], [item["references"][0] for item in known]

    def tested(policy: Any) -> dict[str, Any]:
        return judged([line["text"] for line in written(policy, test)], items)

    found = {
        "first sentence": judged([sentences_of(source)[0] for source in sources], items),
        "retrieved": judged(list(nearest(sources, sorted(set(heap)))), items),
    }
    about = watched(rlseq.make_agent("mle", start, lr=4e-3), task(pairs=False), seconds)
    found["likelihood"] = {**tested(start), **about}
    for way, hyper in WAYS.items():
        policy = made()
        policy.load_state_dict(start.state_dict())
        reward: dict[str, Any] = {"reward": Constant()} if way == "constant reward" else {}
        agent: Any = rlseq.make_agent(**hyper, policy=policy)
        if hyper["name"] == "unpaired":
            agent.adversary.texts, agent.adversary.optimizer.param_groups[0]["lr"] = TEXTS, STEP
        about = watched(agent, task(pairs=False, **reward), seconds)
        found[way] = {**tested(policy), **about}
        print(way, {name: found[way][name] for name in ("rouge_l", "exact", "updates")}, flush=True)
    policy = made()
    about = watched(rlseq.make_agent("mle", policy, lr=4e-3), task(), 2 * seconds)
    found[PAIRS] = {**tested(policy), **about}
    return found, items


def main() -> None:
    """Learn, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12, help="of each row after likelihood")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found, items = learned(seconds)
    scores = {way: row.pop("scores") for way, row in found.items()}
    for way, row in found.items():
        row["against longer"] = difference(scores[way], scores[LONGER])
    shown = [{"source": item["source"], "references": item["references"]} for item in items[:SHOWN]]
    results = {"seconds": seconds, "tested_on": len(items), "items": shown, "ways": found}
    print(record.write("summaries", results))


if __name__ == "__main__":
    main()
