"""Large float32 products on a processor: PyTorch's own, and those of oneDNN that rlseq uses.

    python benchmarks/matmul.py [--threads 1]

Products of the sizes of a T5 of 60 M parameters: rows × width by outputs × width, as a layer computes them,
and the two products of its backward pass. Figures are billions of operations a second of processor time, the
best of seven.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import record
import torch
import torch.nn.functional as F

from rlseq.policies.matmul import AVAILABLE, affine

SIZES = ((64, 512, 512), (64, 512, 2048), (64, 512, 32128), (4096, 512, 2048), (4096, 2048, 512))


def speed(run: Callable[[], Any], operations: float) -> float:
    """Return billions of operations a second of processor time."""
    run()
    best = float("inf")
    for _ in range(7):
        start, times = time.process_time(), 0
        while time.process_time() - start < 0.05:
            run()
            times += 1
        best = min(best, (time.process_time() - start) / times)
    return round(operations / best / 1e9, 1)


def main() -> None:
    """Measure, and write results/matmul-….json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    rows = []
    for n, k, m in SIZES:
        x, w, slope = torch.randn(n, k), torch.randn(m, k, requires_grad=True), torch.randn(n, m)
        x.requires_grad_()

        def both(function: Callable[..., Any], x: Any = x, w: Any = w, slope: Any = slope) -> None:
            torch.autograd.grad(function(x, w), (x, w), slope)

        with torch.no_grad():
            forward = {"pytorch": speed(lambda: F.linear(x, w), 2 * n * k * m)}  # noqa: B023
            forward["onednn"] = speed(lambda: affine(x, w), 2 * n * k * m)  # noqa: B023
        training = {
            "pytorch": speed(lambda: both(F.linear), 6 * n * k * m),
            "onednn": speed(lambda: both(affine), 6 * n * k * m),
        }
        rows.append(
            {"rows": n, "width": k, "outputs": m, "forward": forward, "forward and backward": training}
        )
        print(rows[-1], flush=True)
    print(record.write(f"matmul-{torch.get_num_threads()}-threads", {"onednn": AVAILABLE, "sizes": rows}))


if __name__ == "__main__":
    main()
