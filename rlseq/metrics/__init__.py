"""Exact metrics on integer tokens: rewards, sentence scores and corpus figures in one object each.

cider = CIDErD(references)              # references[i] = list of texts or id lists of item i
cider.score(hypotheses)                 # Tensor [N]
cider.corpus(hypotheses)                # float
cider(tokens, mask, context)            # the reward, [B]; items by context["index"]
cider.increments(tokens, mask, context) # what each token adds, [B, T]
0.5 * BLEU(references) + cider          # a reward too
"""

from rlseq.metrics.algebra import (
    Composable,
    Constant,
    KLShaped,
    LengthPenalty,
    Overlong,
    Shuffled,
    WeightedSum,
)
from rlseq.metrics.base import Metric
from rlseq.metrics.bleu import BLEU, COCO, MIXER, SACREBLEU, add_k, floor, halving, sacrebleu, unsmoothed
from rlseq.metrics.chrf import ChrF, ChrFPlusPlus, all_orders, effective_orders
from rlseq.metrics.cider import CIDEr, CIDErD, DocumentFrequency
from rlseq.metrics.diversity import Commonness, DistinctN, Length, Repetition, SelfBLEU, SetMetric
from rlseq.metrics.edit import (
    EditDistance,
    ErrorRate,
    Exact,
    TokenErrorRate,
    negative,
    one_minus_rate,
)
from rlseq.metrics.external import METEOR, SPICE, Unavailable, unavailable
from rlseq.metrics.registry import Report, evaluate, register
from rlseq.metrics.rouge import ROUGEL, ROUGEN, f_measure, recall_only
from rlseq.metrics.ter import TER
from rlseq.metrics.tokenize import tercom

__all__ = [
    "BLEU",
    "COCO",
    "METEOR",
    "MIXER",
    "ROUGEL",
    "ROUGEN",
    "SACREBLEU",
    "SPICE",
    "TER",
    "CIDEr",
    "CIDErD",
    "ChrF",
    "ChrFPlusPlus",
    "Commonness",
    "Composable",
    "Constant",
    "DistinctN",
    "DocumentFrequency",
    "EditDistance",
    "ErrorRate",
    "Exact",
    "KLShaped",
    "Length",
    "LengthPenalty",
    "Metric",
    "Overlong",
    "Repetition",
    "Report",
    "SelfBLEU",
    "SetMetric",
    "Shuffled",
    "TokenErrorRate",
    "Unavailable",
    "WeightedSum",
    "add_k",
    "all_orders",
    "effective_orders",
    "evaluate",
    "f_measure",
    "floor",
    "halving",
    "negative",
    "one_minus_rate",
    "recall_only",
    "register",
    "sacrebleu",
    "tercom",
    "unavailable",
    "unsmoothed",
]
