"""`python -m rlseq`."""

from rlseq.cli import main

main()
