"""Pretrained models of transformers as policies: encoder–decoders (T5, BART, …) and causal ones (GPT, …).

This package needs `pip install 'rlseq[hf]'`; it is imported when a policy "hf" is made (`rlseq.policies.hf`).
"""
