"""Exact metrics on integer tokens: rewards, sentence scores and corpus figures in one object each.

cider = CIDErD(references)              # references[i] = list of texts or id lists of item i
cider.score(hypotheses)                 # Tensor [N]
cider.corpus(hypotheses)                # float
cider(tokens, mask, context)            # the reward, [B]; items by context["index"]
cider.increments(tokens, mask, context) # what each token adds, [B, T]
0.5 * BLEU(references) + cider          # a reward too
"""

from rlseq.metrics.algebra import Composable as Composable
from rlseq.metrics.algebra import Constant as Constant
from rlseq.metrics.algebra import KLShaped as KLShaped
from rlseq.metrics.algebra import LengthPenalty as LengthPenalty
from rlseq.metrics.algebra import Overlong as Overlong
from rlseq.metrics.algebra import Shuffled as Shuffled
from rlseq.metrics.algebra import WeightedSum as WeightedSum
from rlseq.metrics.base import Metric as Metric
from rlseq.metrics.bleu import BLEU as BLEU
from rlseq.metrics.bleu import COCO as COCO
from rlseq.metrics.bleu import MIXER as MIXER
from rlseq.metrics.bleu import SACREBLEU as SACREBLEU
from rlseq.metrics.bleu import add_k as add_k
from rlseq.metrics.bleu import floor as floor
from rlseq.metrics.bleu import halving as halving
from rlseq.metrics.bleu import sacrebleu as sacrebleu
from rlseq.metrics.bleu import unsmoothed as unsmoothed
from rlseq.metrics.chrf import ChrF as ChrF
from rlseq.metrics.chrf import ChrFPlusPlus as ChrFPlusPlus
from rlseq.metrics.chrf import all_orders as all_orders
from rlseq.metrics.chrf import effective_orders as effective_orders
from rlseq.metrics.cider import CIDEr as CIDEr
from rlseq.metrics.cider import CIDErD as CIDErD
from rlseq.metrics.cider import DocumentFrequency as DocumentFrequency
from rlseq.metrics.diversity import Commonness as Commonness
from rlseq.metrics.diversity import DistinctN as DistinctN
from rlseq.metrics.diversity import Length as Length
from rlseq.metrics.diversity import Repetition as Repetition
from rlseq.metrics.diversity import SelfBLEU as SelfBLEU
from rlseq.metrics.diversity import SetMetric as SetMetric
from rlseq.metrics.edit import EditDistance as EditDistance
from rlseq.metrics.edit import ErrorRate as ErrorRate
from rlseq.metrics.edit import Exact as Exact
from rlseq.metrics.edit import TokenErrorRate as TokenErrorRate
from rlseq.metrics.edit import negative as negative
from rlseq.metrics.edit import one_minus_rate as one_minus_rate
from rlseq.metrics.external import METEOR as METEOR
from rlseq.metrics.external import SPICE as SPICE
from rlseq.metrics.external import Unavailable as Unavailable
from rlseq.metrics.external import unavailable as unavailable
from rlseq.metrics.registry import Report as Report
from rlseq.metrics.registry import evaluate as evaluate
from rlseq.metrics.registry import register as register
from rlseq.metrics.rouge import ROUGEL as ROUGEL
from rlseq.metrics.rouge import ROUGEN as ROUGEN
from rlseq.metrics.rouge import f_measure as f_measure
from rlseq.metrics.rouge import recall_only as recall_only
from rlseq.metrics.ter import TER as TER
from rlseq.metrics.tokenize import tercom as tercom
