"""The `rlseq` command."""

from __future__ import annotations

from rlseq.cli.command_line import main as main
