"""A check that a policy of your own follows the protocol of `rlseq.types.Policy`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.decode import acting_logits
from rlseq.engine.rollout import evaluate_actions, rollout
from rlseq.engine.state import RowsError, fork
from rlseq.mdp.sequence_env import sequence_env
from rlseq.types import RAW, Behaviour, Context, State
from rlseq.utils.modules import eval_mode

Scores = dict[str, Tensor]  # those of an evaluation, by name


def check_policy(policy: Any, env: Any, tolerance: float = 1e-4) -> None:
    """Raise `AssertionError` unless `evaluate` agrees with `step`, in every row, whatever the other rows are.

    Checks, on texts that the policy writes itself:

    * shapes, and that all numbers are finite;
    * that `evaluate` gives the log-probabilities and entropies of `step`, tempered and masked ones, too;
    * that what is scored at t depends on no action after it, and neither entropy nor value on action t;
    * that a row depends neither on its batch-mates, nor on how its source is filled up;
    * that rows of a state can be copied and go on alike, while their originals go elsewhere.

    Logits or a state of the wrong shape are refused by the engine itself, with `ValueError` or `TypeError`.

    Args:
        policy: any object with the three methods of `rlseq.types.Policy`.
        env: a task whose contexts and vocabulary it reads.
        tolerance: largest difference, in nats.
    """
    with torch.no_grad(), eval_mode(policy):
        exam = _Exam(policy, sequence_env(env), tolerance)
        exam.shapes()
        exam.steps()
        exam.company()
        exam.future()
        exam.source_padding()
        exam.forks()
        exam.behaviour()


class _Exam:
    """Texts of a policy and their first evaluation, with which all others must agree on real actions."""

    def __init__(self, policy: Any, env: Any, tolerance: float) -> None:
        self.policy, self.env, self.tolerance = policy, env, tolerance
        try:
            self.batch = rollout(policy, env)
        except RowsError as error:
            raise AssertionError(f"copied rows of a state do not go on alike: {error}") from error
        self.actions, self.context, self.mask = self.batch.actions, self.batch.context, self.batch.mask
        self.others = (self.actions + 1) % len(env.vocab)  # another word everywhere
        self.place = torch.arange(self.actions.shape[1], device=self.actions.device)
        self.seen = self._evaluate(self.actions, self.context)

    def shapes(self) -> None:
        wanted = tuple(self.actions.shape)
        for name, value in self.seen.items():
            got = tuple(value.shape)
            assert got == wanted, f"{name} must be [B, T] = {wanted}, got {got}"
            assert (value.isfinite() | ~self.mask).all(), f"{name} must be finite, got NaN or infinity"

    def steps(self) -> None:
        message = "`evaluate` and `step` disagree"
        self._agree(evaluate_actions(self.policy, self.batch).log_probs, self.batch.log_probs, message)
        self._as_before(self._replay(self.actions, self.context), message)

    def future(self) -> None:
        """Change all actions from t on, with another t in every row, and what follows the end of a text."""
        middle = torch.arange(len(self.actions), device=self.place.device) % len(self.place)
        for first, what in ((middle, "later actions"), (self.mask.sum(1), "what follows the end")):
            first = first.unsqueeze(1)
            changed = self.actions.where(self.place < first, self.others)
            got = self._evaluate(changed, self.context)
            log_probs = {"log_probs": got.pop("log_probs")}
            self._as_before(log_probs, f"{what} matter", self.place < first)
            self._as_before(got, f"{what} matter", self.place <= first)

    def company(self) -> None:
        """Score every row again, among rows with other texts and contexts."""
        actions = torch.cat([self.actions, self.others.flip(0)])
        context = {name: torch.cat([value, value.flip(0)]) for name, value in self.context.items()}
        for scored in (self._evaluate, self._replay):
            got = scored(actions, context)
            rows = {name: score[: len(self.actions)] for name, score in got.items()}
            self._as_before(rows, "the other rows of the batch matter")

    def source_padding(self) -> None:
        """Remove half of every source: filled up with padding or cut off, the scores must be the same."""
        if self.env.source_vocab is None:
            return
        source, pad = self.context["source"], self.env.source_vocab.pad
        short = source[:, : (source.shape[1] + 1) // 2]
        filled = torch.cat([short, torch.full_like(source[:, short.shape[1] :], pad)], 1)
        short_context, filled_context = ({**self.context, "source": s} for s in (short, filled))
        wanted = self._evaluate(self.actions, short_context)
        for scored in (self._evaluate, self._replay):
            self._compare(scored(self.actions, filled_context), wanted, "what fills up the source matters")

    def forks(self) -> None:
        """Copy the rows in the middle of a text, in another order, after the originals have gone on."""
        middle = len(self.place) // 2
        state = self.policy.start(self.context)
        token = torch.full_like(self.actions[:, 0], self.env.vocab.bos)
        for t in range(middle):
            _, state = self.policy.step(token, state)
            token = self.actions[:, t]
        order = torch.arange(len(self.actions), device=self.place.device).flip(0)
        copy = fork(state, order)
        self.policy.step(self.others[:, 0], state)
        context = {name: value[order] for name, value in self.context.items()}
        got = self._replay(self.actions[order], context, resumed=(middle, copy))
        back = {name: score[order] for name, score in got.items()}
        self._as_before(back, "copied rows of a state do not go on alike", self.place >= middle)

    def behaviour(self) -> None:
        """Check a temperature, and a support without a word that was not written."""
        if len(inspect.signature(self.policy.evaluate).parameters) < 3 or len(self.env.vocab) < 2:
            return
        support = torch.ones(*self.actions.shape, len(self.env.vocab), device=self.place.device).bool()
        support.scatter_(2, self.others.unsqueeze(2), False)
        behaviour = Behaviour(0.7, support)
        wanted = self._evaluate(self.actions, self.context, behaviour)
        got = self._replay(self.actions, self.context, behaviour)
        self._compare(got, wanted, "`evaluate` and `step` disagree under temperature and support")

    def _replay(
        self,
        actions: Tensor,
        context: Context,
        behaviour: Behaviour = RAW,
        resumed: tuple[int, State] | None = None,
    ) -> Scores:
        """Return the scores of actions by `step`, from the first on, or resumed before action t; 0 before."""
        first, state = resumed or (0, self.policy.start(context))
        token = actions[:, first - 1] if first else torch.full_like(actions[:, 0], self.env.vocab.bos)
        rows = torch.arange(len(actions), device=actions.device) * actions.shape[1]
        log_probs, entropy, top = (torch.zeros(actions.shape, device=actions.device) for _ in range(3))
        for t in range(first, actions.shape[1]):
            logits, state = self.policy.step(token, state)
            got, wanted = tuple(logits.shape), (len(actions), len(self.env.vocab))
            assert got == wanted, f"logits must be [B, V] = {wanted}, got {got}"
            log_p = acting_logits(logits, behaviour.at(rows + t, actions.shape[1])).log_softmax(-1)
            token = actions[:, t]
            log_probs[:, t] = log_p.gather(1, token.unsqueeze(1)).squeeze(1)
            entropy[:, t] = -(log_p.exp() * log_p).sum(-1)
            top[:, t] = log_p.amax(-1).exp()
        return {"log_probs": log_probs, "entropy": entropy, "top": top}

    def _evaluate(self, actions: Tensor, context: Context, *behaviour: Behaviour) -> Scores:
        found = self.policy.evaluate(actions, context, *behaviour)._replace(logits=None)
        return {name: score for name, score in found._asdict().items() if score is not None}

    def _as_before(self, got: Scores, message: str, where: Tensor | None = None) -> None:
        self._compare(got, self.seen, message, where)

    def _compare(self, got: Scores, wanted: Scores, message: str, where: Tensor | None = None) -> None:
        for name in wanted:
            if name in got:
                self._agree(got[name], wanted[name], f"{message}: {name}", where)

    def _agree(self, a: Tensor, b: Tensor, message: str, where: Tensor | None = None) -> None:
        looked_at = self.mask if where is None else self.mask & where
        gap = ((a - b).abs().nan_to_num(nan=torch.inf)).where(looked_at, 0.0)
        row, step = divmod(int(gap.argmax()), gap.shape[1])
        worst = float(gap.max())
        assert worst <= self.tolerance, f"{message}, by {worst:.3g} at row {row}, step {step}"
