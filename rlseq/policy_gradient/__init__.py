"""Policy gradients: the `Agent`, the product of factors, and exact gradients."""

from __future__ import annotations

from rlseq.policy_gradient.algorithm import PolicyGradient as PolicyGradient
from rlseq.policy_gradient.sample_reuse import SampleReuse as SampleReuse
