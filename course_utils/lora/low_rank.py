"""The yardstick: what is the best that an update of rank r could be?

Every matrix M has a singular value decomposition M = sum_i s_i u_i v_i^T with s_1 >= s_2 >= ... >= 0. Eckart, Young and
Mirsky: of all matrices of rank at most r the sum of the first r terms is nearest to M, in the Frobenius norm and in the
spectral norm, and what remains is sqrt(s_{r+1}^2 + s_{r+2}^2 + ...) and s_{r+1}.
"""

from __future__ import annotations

import torch

from course_utils.pruning.given import check_weight
from course_utils.validate import check_count


def best_low_rank(update: torch.Tensor, rank: int) -> torch.Tensor:
    """Compute the nearest update of rank at most r: argmin ||M - X||_F over rank(X) <= r, X = sum_{i<=r} s_i u_i v_i^T.

    Args:
        update: (out, in) of a linear layer or (out, in, k_h, k_w) of a convolution, floating point, not changed. A
            convolution's is seen as the matrix (out, in k_h k_w), as LoRAConv2d factorises it.
        rank: r, at least 0 (which gives zeros); a rank above that of the matrix gives the update itself.

    Returns:
        The approximation, of the shape and dtype of update.

    Raises:
        ValueError: If rank is below 0, or update is empty or not finite.
        TypeError: If rank is no int, or update no floating-point tensor.

    Source:
        Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1 (1936);
        Mirsky, "Symmetric gauge functions and unitarily invariant norms" (1960), theorem 2.
    """
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    return (u[:, :rank] * s[:rank] @ vh[:rank]).view(update.shape)
