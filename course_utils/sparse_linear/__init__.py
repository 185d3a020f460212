"""Lab 1: sparse solutions of a linear model. The exercises' reference implementations are in `solvers`.

`given` holds what the lab gives to students, `plots` its pictures, `widgets` its sliders.
"""

from course_utils.sparse_linear.solvers import (
    gradient,
    gradient_descent,
    keep_largest,
    l1_subgradient_descent,
    objective,
    projected_gradient_descent,
    proximal_gradient_descent,
    soft_threshold,
    trimmed_proximal_gradient_descent,
    trimmed_soft_threshold,
)

__all__ = [
    "gradient",
    "gradient_descent",
    "keep_largest",
    "l1_subgradient_descent",
    "objective",
    "projected_gradient_descent",
    "proximal_gradient_descent",
    "soft_threshold",
    "trimmed_proximal_gradient_descent",
    "trimmed_soft_threshold",
]
