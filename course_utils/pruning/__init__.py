"""Pruning. Lab 2's reference implementations are in `magnitude`, Lab 4's in `structured`, `group_lasso` and `removal`.

Lab 2: `given` holds what it gives to students, `plan` its numbers for both profiles, `sweeps` its training loops and
scans, `challenge` its closing challenge, `plots` its pictures, `widgets` its sliders.

Lab 4: `channels` knows which layers read a convolution's channels, `structured_given` is what it gives to students,
`structured_plan` its numbers, `structured_runs` its training loops, `structured_costs` its measurements
(multiplications, bytes, milliseconds), `structured_plots` and `structured_widgets` its pictures and slider.
"""

from course_utils.pruning.group_lasso import group_lasso, group_lasso_step
from course_utils.pruning.magnitude import (
    MaskedOptimizer,
    compress,
    cubic_schedule,
    global_prune_by_percentage,
    iterative_pruning,
    linear_schedule,
    magnitude_mask,
    prune_by_percentage,
    sparsity_report,
)
from course_utils.pruning.removal import remove_pruned_filters
from course_utils.pruning.structured import (
    SparseConv2d,
    filter_l1_mask,
    filter_l1_pruning,
    moving_average,
    n_m_mask,
    unstructured_pruning,
)

__all__ = [
    "MaskedOptimizer",
    "SparseConv2d",
    "compress",
    "cubic_schedule",
    "filter_l1_mask",
    "filter_l1_pruning",
    "global_prune_by_percentage",
    "group_lasso",
    "group_lasso_step",
    "iterative_pruning",
    "linear_schedule",
    "magnitude_mask",
    "moving_average",
    "n_m_mask",
    "prune_by_percentage",
    "remove_pruned_filters",
    "sparsity_report",
    "unstructured_pruning",
]
