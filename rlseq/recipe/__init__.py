"""Likelihood and then a reward, from a file of pairs to a tested model: `rlseq.fit`."""
