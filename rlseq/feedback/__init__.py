"""Human feedback: texts of a policy are labelled, and a reward model learns from the labels."""

from __future__ import annotations

from rlseq.discriminators.reward_model import RewardLearning as RewardLearning
from rlseq.discriminators.reward_model import RewardModel as RewardModel
from rlseq.discriminators.reward_model import load_reward as load_reward
from rlseq.feedback.labelling import LabelConfig as LabelConfig
from rlseq.feedback.labelling import label as label
from rlseq.feedback.training import RewardModelConfig as RewardModelConfig
from rlseq.feedback.training import train_reward_model as train_reward_model
