"""Every task by name alone: simple rules, likelihood, and two policy gradients after it.

    OMP_NUM_THREADS=1 python benchmarks/tasks.py [Boxes Chat …] [--seconds 15]

At most two CPU minutes a task. Without names, the tasks that results/all-tasks.json does not hold are
measured; the others stay. Settings are the tuned ones of the package. Scored on at most 500 of the items
that a task holds out, drawn at random, or on its training items where it declares no held-out data. The best
agent is the one with the largest reward on training items. One seed: the intervals are over items.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import record
import torch
from recipes.seeds import trained
from simple_rules import (
    Rule,
    backwards,
    baselines,
    first_sentence,
    first_that_fits,
    likeliest_label,
    soft_suppression,
)

import rlseq
from rlseq.compare.statistics import mean_interval, paired_difference
from rlseq.engine.evaluation import evaluate_texts, selection
from rlseq.training.experiment_envs import held_out, tested_on
from rlseq.training.tuned_settings import TunedSettings, tuned_settings

SHOWN = 2
TEXTS = 500
CHOSEN_ON = 200  # training items on which the best agent is chosen
AGENTS = ("reinforce", "rloo")


@dataclass(frozen=True)
class Described:
    """A task in the table of all tasks, and how it is tested.

    Args:
        written: what is written.
        data: the default.
        own: options for data of one's own.
        rewards: the default one first.
        page: of the docs.
        decode: "greedy", or "sample" where a task asks for variety.
        rules: baselines of this task alone.
        share: of the seconds of a stage, less where a task is learned at once.
    """

    written: str
    data: str
    own: str
    rewards: str
    page: str
    decode: str = "greedy"
    rules: tuple[Rule, ...] = ()
    share: float = 1.0


TEXT_METRICS = "any text metric"
FILES = "`path`: TSV, JSONL, folder"
DESCRIBED = {
    "rlseq/Copy-v0": Described("the source", "random letters", "", "`accuracy`, `exact`", "copy", share=0.3),
    "rlseq/Reverse-v0": Described(
        "the source, backwards",
        "random letters",
        "",
        "`accuracy`, `exact`",
        "reverse",
        rules=(backwards,),
        share=0.3,
    ),
    "rlseq/Parallel-v0": Described(
        "a translation",
        "a grammar of English and Spanish",
        FILES,
        f"`bleu` or `edit`, {TEXT_METRICS}",
        "parallel",
    ),
    "rlseq/G2P-v0": Described(
        "phonemes of a word", "the CMU dictionary", "`path`: a dictionary", f"`edit`, {TEXT_METRICS}", "g2p"
    ),
    "rlseq/Numbers-v0": Described(
        "a number in words", "numbers to 9,999, ten languages", "", f"`edit`, {TEXT_METRICS}", "numbers"
    ),
    "rlseq/Captions-v0": Described(
        "a description of a picture",
        "rendered scenes",
        "`path`, `images`, `features`: COCO",
        f"`cider_d`, {TEXT_METRICS}",
        "captions",
    ),
    "rlseq/Text-v0": Described(
        "a text like those of a corpus",
        "a grammar of sentences",
        "`path`: a text a line",
        "`bleu_3`, `bleu_2`, `bleu_4`",
        "text",
        decode="sample",
    ),
    "rlseq/HMM-v0": Described(
        "a label for each letter",
        "a hidden Markov model",
        "",
        "`accuracy`, `exact`, `log_posterior`",
        "hmm",
        rules=(likeliest_label,),
    ),
    "rlseq/Oracle-v0": Described(
        "a text that an LSTM finds probable",
        "samples of a random LSTM",
        "",
        "`oracle`",
        "oracle",
        decode="sample",
    ),
    "rlseq/Enumerable-v0": Described(
        "one of at most 256 texts", "a random table", "", "the table", "enumerable", share=0.3
    ),
    "rlseq/Chat-v0": Described(
        "an answer, or a dialogue",
        "a grammar of questions",
        "`path`: threads",
        f"`rules`, {TEXT_METRICS}",
        "chat",
    ),
    "rlseq/Poems-v0": Described(
        "a Chinese quatrain",
        "a grammar of regulated verse",
        "`path`: a poem a line",
        "`form`, `lines`, `tones`, `rhyme`, `bleu_3`",
        "poems",
        decode="sample",
    ),
    "rlseq/Music-v0": Described(
        "the bars of a tune after the first",
        "a grammar of tunes",
        "`path`: ABC",
        f"`form`, `key`, `metre`, `closure`, {TEXT_METRICS}",
        "music",
    ),
    "rlseq/Summary-v0": Described(
        "a headline", "a generated newspaper", FILES, f"`rouge_l`, {TEXT_METRICS}", "summary"
    ),
    "rlseq/Molecules-v0": Described(
        "a molecule as SMILES",
        "a grammar of rings and groups",
        "`path`: .smi, .txt, .csv",
        "`rules`, `qed`, `valid`, `novel`, `unique`, `diversity`",
        "molecules",
        decode="sample",
    ),
    "rlseq/Style-v0": Described(
        "what the source says, in another style",
        "complaints and praise, no pairs",
        "`path`, `target`: two .txt",
        f"`style`, `fluency`, `content`, {TEXT_METRICS}",
        "style",
    ),
    "rlseq/Extract-v0": Described(
        "keep or drop for each sentence",
        "a generated newspaper",
        FILES,
        "`rouge_l`",
        "summary",
        rules=(first_sentence,),
    ),
    "rlseq/Retrieval-v0": Described(
        "questions, then a document",
        "a random table",
        "",
        "found, less the questions",
        "retrieval",
        rules=(first_that_fits,),
    ),
    "rlseq/Boxes-v0": Described(
        "numbers of candidate boxes",
        "rendered scenes",
        "`path`: JSONL",
        "`f1`, `f1_steps`, `ap`",
        "boxes",
        rules=(soft_suppression,),
    ),
    "rlseq/Bandit-v0": Described(
        "one of three arms", "none", "`rewards`", "of the arm", "decisions", share=0.1
    ),
    "rlseq/CreditChain-v0": Described(
        "a decision, then waiting", "none", "", "by step", "decisions", share=0.1
    ),
    "rlseq/PlayOrStudy-v0": Described(
        "a decision, then waiting", "none", "", "by step", "decisions", share=0.1
    ),
    "rlseq/TwoStates-v0": Described(
        "nothing to choose", "eight recorded episodes", "", "by step", "decisions", share=0.05
    ),
}


def main() -> None:
    """Measure tasks, and write the results after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("only", nargs="*", help="names of tasks, such as Boxes, that are measured anew")
    parser.add_argument("--seconds", type=float, default=15, help="of each stage, on one processor core")
    parser.add_argument("--name", default="all-tasks", help="of the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = record.RESULTS / f"{options.name}.json"
    results = json.loads(path.read_text("utf-8"))["results"] if path.exists() else {}
    wanted = [f"rlseq/{name}-v0" for name in options.only] or [id for id in DESCRIBED if id not in results]
    for id in wanted:
        results[id] = {"commit": record.COMMIT, **measured(id, DESCRIBED[id], options.seconds)}
        print(id, results[id]["baseline"], results[id]["stages"], flush=True)
        ordered = {each: results[each] for each in DESCRIBED if each in results}
        print(record.write(options.name, ordered))


def measured(id: str, task: Described, seconds: float) -> dict[str, Any]:
    """Return rewards of rules, before training and after each stage, and texts before and after."""
    began = time.process_time()
    torch.manual_seed(0)
    tuned, test = tuned_settings(id), rlseq.make(id, num_envs=100, **held_out(id))
    rules = baselines(id, test, TEXTS, task.rules)
    best_rule = max(rules, key=lambda name: rules[name].means()["reward"])
    policies = learned(id, tuned, seconds * task.share)
    texts = {
        name: evaluate_texts(policy, test, task.decode, limit=TEXTS) for name, (policy, _) in policies.items()
    }
    train = rlseq.make(id, num_envs=100)
    earned = {
        name: rlseq.evaluate(policies[name][0], train, task.decode, limit=CHOSEN_ON)["reward"]
        for name in policies
        if name in AGENTS
    }
    best = max(earned, key=earned.__getitem__)
    before = "likelihood" if "likelihood" in texts else "untrained"
    rewards = {name: found.scores["reward"].tolist() for name, found in texts.items()}
    return {
        "tested_on": tested_on(id),
        "selection": selection(test.size, TEXTS),
        "decode": task.decode,
        "rules": {name: found.means()["reward"] for name, found in rules.items()},
        "baseline": best_rule,
        "stages": {
            name: {"updates": policies[name][1], "reward": [*map(float, mean_interval(rewards[name])[:3])]}
            for name in texts
        },
        "best": best,
        "before": before,
        "gain": [*map(float, paired_difference(rewards[best], rewards[before])[:3])],
        "samples": compared(texts[before].lines(test)[:SHOWN], texts[best].lines(test)[:SHOWN]),
        "seconds_of_each_stage": seconds * task.share,
        "seconds": time.process_time() - began,
    }


def compared(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return texts for the same items before and after a reward."""
    return [
        {
            "source": old.get("source", ""),
            "reference": (old.get("references") or [""])[0],
            "before": old["text"],
            "after": new["text"],
        }
        for old, new in zip(before, after, strict=True)
    ]


def learned(id: str, tuned: TunedSettings, seconds: float) -> dict[str, tuple[Any, int]]:
    """Return the policy of each stage, and its updates: none, by likelihood, and by rewards from there."""
    env = rlseq.make(id, **{"num_envs": 64, **tuned.options})
    kind = tuned.policy or ("lstm" if env.source_vocab is None else "seq2seq")
    sizes = dict(tuned.sizes) or {"hidden": 64, "embedding": 32}

    def again(weights: Any = None) -> Any:
        policy = rlseq.make_policy(kind, env, **sizes)
        policy.load_state_dict(policy.state_dict() if weights is None else weights)
        return policy

    start = again()
    found: dict[str, tuple[Any, int]] = {"untrained": (start, 0)}
    if "references" in env.contexts(torch.zeros(1, dtype=torch.int64)):
        start = again(start.state_dict())
        hyper = {"lr": 2e-3, **tuned.agents.get("mle", {}), "schedule": "linear"}
        found["likelihood"] = start, trained(rlseq.make_agent("mle", start, **hyper), env, seconds)
    for name in AGENTS:
        policy = again(start.state_dict())
        hyper = tuned.hyper(name, after_likelihood=name in tuned.after_likelihood) or {"lr": 1e-3}
        found[name] = policy, trained(rlseq.make_agent(name, policy, **hyper), env, seconds)
    return found


if __name__ == "__main__":
    main()
