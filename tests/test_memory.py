"""Scoring texts of a large vocabulary never holds `[B, T, V]`, forward or backward."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import torch
from rlseq.policies.head import Head

B, T, V, H = 64, 64, 50_000, 32
torch.manual_seed(0)
head, actions = Head(H, V), torch.randint(V, (B, T))
features = torch.randn(B, T, H, requires_grad=True)
warm = head.evaluate(features[:1], actions[:1])
(warm.log_probs.sum() + warm.entropy.sum()).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "ours":
    seen = head.evaluate(features, actions)
    loss = seen.log_probs.sum() + seen.entropy.sum()
else:
    log_p = head(features.view(-1, H)).log_softmax(-1)
    loss = log_p.gather(1, actions.view(-1, 1)).sum() - (log_p.exp() * log_p).sum()
loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak(who: str) -> int:
    """Kilobytes that scoring and its gradient add to the process."""
    command = [sys.executable, "-c", PROGRAM, who]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(result.stdout)


def test_peak_memory_is_below_a_quarter_of_the_logits_with_autograd() -> None:
    ours, materialised = peak("ours"), peak("plain")
    assert materialised > 64 * 64 * 50_000 * 4 / 1024, "the yardstick holds the logits at least once"
    assert ours < materialised / 4, f"{ours} kB against {materialised} kB"
