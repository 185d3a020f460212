"""Low-rank adaptation. Lab 5's reference implementations are in `layers`, `adaptation` and `low_rank`.

`given` holds what Lab 5 gives to students, `toys` the tiny networks of its checks, `plan` its numbers for both
profiles, `transfer` the task, its networks and its training loop, `updates` what finetuning did to weights, `plots` the
pictures, `widgets` the slider.
"""

from course_utils.lora.adaptation import (
    freeze_until,
    inject_lora,
    lora_state_dict,
    merge,
    trainable_parameters,
    unmerge,
)
from course_utils.lora.layers import LoRAConv2d, LoRALinear
from course_utils.lora.low_rank import best_low_rank

__all__ = [
    "LoRAConv2d",
    "LoRALinear",
    "best_low_rank",
    "freeze_until",
    "inject_lora",
    "lora_state_dict",
    "merge",
    "trainable_parameters",
    "unmerge",
]
