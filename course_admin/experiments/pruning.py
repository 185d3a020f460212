"""The experiments of the pruning table: ResNet-20 without 80 % of its weights, and methods at several sparsities.

Published setting (Duke University, ECE 661, 2022, homework 4): 20 epochs of finetuning; iterative runs remove 8 % more
before each of the first 10 epochs, weights may recover until the last of these steps, then the zeros stay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from course_admin.experiments.catalogue import WEIGHT_DECAY, Experiment, Job, Setting
from course_utils.batch_norm import remeasure_batch_norm
from course_utils.distillation import Distillation
from course_utils.pruning import cubic_schedule, global_prune_by_percentage, linear_schedule, prune_by_percentage
from course_utils.pruning.given import Masks, apply_masks, masks_of
from course_utils.resnet import weighted_layers
from course_utils.training import TrainingState

Prune = Callable[[nn.Module, float], Masks]
TABLE = "Pruning ResNet-20 on CIFAR-10"
METHODS_TABLE = "Pruning ResNet-20 by four methods, 50 to 95 %"
PUBLISHED_ONE_SHOT = ((0.4, 0.8874), (0.6, 0.7223), (0.8, 0.1003))  # sparsity of every layer, accuracy
LR = 0.02
TARGET_95 = 0.8962  # 3 points below the dense network
AIM_95 = "95 % of all weights gone, within 3 points of the dense network"
LONGER_95 = (  # suffix of the name, epochs, peak rate, weight decay
    ("rate", 20, 0.1, WEIGHT_DECAY),
    ("60epochs", 60, 0.1, WEIGHT_DECAY),
    ("60epochs_decay", 60, 0.1, 1e-4),
    ("180epochs_decay", 180, 0.1, 1e-4),
)


class KeepZeros:
    """Training that keeps a set of weights at exactly zero: `fit(..., **hooks.as_hooks())`.

    With a schedule, every epoch up to n_steps begins with pruning at schedule(epoch), and weights may recover in
    between; the masks hold from the last pruning on. They are read off the network's zeros where a run was interrupted.

    Args:
        prune: Prunes in place and returns masks; None when the network is pruned already.
        schedule: Sparsity as a function of the epoch, from 1.
        n_steps: Number of epochs that begin with pruning.
    """

    def __init__(self, prune: Prune | None = None, schedule: Callable[[int], float] = lambda e: 0.0, n_steps: int = 0):
        self.prune, self.schedule, self.n_steps = prune, schedule, n_steps
        self.masks: Masks | None = None

    def before_epoch(self, state: TrainingState) -> None:
        """Prune where the schedule says so, and decide whether zeros stay."""
        epoch = state.epoch + 1
        if epoch <= self.n_steps:
            masks = self.prune(state.model, self.schedule(epoch))
            self.masks = masks if epoch == self.n_steps else None
        elif self.masks is None:
            self.masks = masks_of(state.model)

    def after_step(self, state: TrainingState) -> None:
        """Set what momentum and weight decay have moved back to zero."""
        if self.masks is not None:
            apply_masks(state.model, self.masks)

    def as_hooks(self) -> dict:
        """Return the two methods as arguments of `fit`."""
        return {"before_epoch": self.before_epoch, "after_step": self.after_step}


def with_own_statistics(model: nn.Module, setting: Setting) -> nn.Module:
    """Measure a network's batch-norm statistics anew on the setting's data, in place, and return it."""
    profile = setting.profile
    return remeasure_batch_norm(model, profile.load_dataset(), padding=profile.padding, seed=setting.seed)


def one_shot(setting: Setting, *, prune: Prune, sparsity: float, finetune: bool, remeasure: bool = False) -> Job:
    """Prune the trained network once; finetune with the zeros kept, or measure batch-norm statistics anew."""
    model = setting.load_resnet20()
    prune(model, sparsity)
    if remeasure:
        with_own_statistics(model, setting)
    return Job(model, LR, setting.epochs if finetune else 0, KeepZeros().as_hooks())


def iterative(
    setting: Setting,
    *,
    prune: Prune,
    sparsity: float,
    schedule: Callable[..., float],
    lr: float = LR,
    weight_decay: float = WEIGHT_DECAY,
    distilled: bool = False,
) -> Job:
    """Prune a little more before each epoch of the first half; the second half finetunes.

    Where it is distilled, the network that is not pruned teaches all along.
    """
    n_steps = max(1, setting.epochs // 2)
    hooks = KeepZeros(prune, lambda epoch: schedule(epoch, n_steps, sparsity), n_steps).as_hooks()
    if distilled:
        hooks["loss"] = Distillation(setting.load_resnet20())
    return Job(setting.load_resnet20(), lr, setting.epochs, hooks, weight_decay=weight_decay, pruned_by=n_steps)


def freeze_and_retrain(setting: Setting, *, sparsity: float) -> Job:
    """Prune the convolutions with one threshold, freeze them, and retrain everything else."""
    model = setting.load_resnet20()
    global_prune_by_percentage(model, sparsity)
    for _, layer in weighted_layers(model):
        layer.weight.requires_grad_(isinstance(layer, nn.Linear))
    return Job(model, LR, setting.epochs, KeepZeros().as_hooks())


def _one_shot_row(
    table: str, scope: str, sparsity: float, *numbers: float | None, remeasure: bool = False
) -> Experiment:
    """Make a row in which no weight is trained: one threshold in every layer, or one for all weights.

    Args:
        table: The table it belongs to.
        scope: `"layer"` or `"global"`.
        sparsity: Fraction of the weights that goes.
        *numbers: Published accuracy and target, if there are any.
        remeasure: Whether batch norm's statistics are measured anew.

    Returns:
        The row.
    """
    prune, where, curve = {
        "layer": (prune_by_percentage, "every layer", "one shot, per layer"),
        "global": (global_prune_by_percentage, "all weights", "one shot, one threshold"),
    }[scope]
    name, what = f"prune_{scope}_{round(100 * sparsity)}", f"{100 * sparsity:.0f} % of {where}, one shot"
    if remeasure:
        name, curve = f"{name}_statistics", f"{curve}, statistics anew"
    how = "batch-norm statistics measured anew" if remeasure else "no finetuning"
    prepare = partial(one_shot, prune=prune, sparsity=sparsity, finetune=False, remeasure=remeasure)
    aim = _one_shot_aim(sparsity) if numbers else ""
    return Experiment(name, table, f"{what}, {how}", prepare, *numbers, curve=curve, aim=aim)


def _one_shot_aim(sparsity: float) -> str:
    return f"{100 * sparsity:.0f} % of every layer, one shot, no weight trained: as published"


def _published_rows() -> list[Experiment]:
    options = {"sparsity": 0.8, "schedule": linear_schedule}
    return [
        *(_one_shot_row(TABLE, "layer", s, known, known) for s, known in PUBLISHED_ONE_SHOT),
        *(_one_shot_row(TABLE, "global", s) for s in (0.4, 0.6, 0.8)),
        *(
            _one_shot_row(TABLE, "layer", s, None, known, remeasure=True)  # the aim: what was published without this
            for s, known in PUBLISHED_ONE_SHOT
        ),
        *(_one_shot_row(TABLE, "global", s, remeasure=True) for s in (0.4, 0.6, 0.8)),
        *(
            Experiment(f"prune_layer_{round(100 * s)}_restarted", TABLE,
                       f"{100 * s:.0f} % of every layer, one shot, checkpoint restarted with twice the weight decay",
                       partial(one_shot, prune=prune_by_percentage, sparsity=s, finetune=False),
                       known, known, restarted=True, aim=_one_shot_aim(s))
            for s, known in PUBLISHED_ONE_SHOT
        ),
        Experiment("finetune_layer_80", TABLE, "80 % of every layer, one shot, 20 epochs of finetuning",
                   partial(one_shot, prune=prune_by_percentage, sparsity=0.8, finetune=True), 0.8799, 0.905),
        Experiment("iterative_layer_80", TABLE, "80 % of every layer, 8 % more before each of 10 epochs, then 10",
                   partial(iterative, prune=prune_by_percentage, **options), 0.8756, 0.907),
        Experiment("iterative_global_80", TABLE, "80 % of all weights, 8 % more before each of 10 epochs, then 10",
                   partial(iterative, prune=global_prune_by_percentage, **options), 0.8840, 0.915, seeds=(0, 1, 2)),
        Experiment("iterative_global_95", TABLE, "95 % of all weights, cubic schedule over 10 epochs, then 10",
                   partial(iterative, prune=global_prune_by_percentage, sparsity=0.95, schedule=cubic_schedule),
                   target=TARGET_95, aim=AIM_95),
        *(
            Experiment(f"iterative_global_95_{suffix}", TABLE,
                       f"95 % of all weights, cubic schedule over {epochs // 2} epochs, then {epochs // 2}; peak rate "
                       f"{lr}, weight decay {weight_decay}",
                       partial(iterative, prune=global_prune_by_percentage, sparsity=0.95, schedule=cubic_schedule,
                               lr=lr, weight_decay=weight_decay),
                       target=TARGET_95, epochs=epochs, aim=AIM_95)
            for suffix, epochs, lr, weight_decay in LONGER_95
        ),
        Experiment("iterative_global_95_60epochs_distilled", TABLE,
                   "95 % of all weights, cubic schedule over 30 epochs, then 30; peak rate 0.05, weight decay 0.0005, "
                   "taught by the dense network",
                   partial(iterative, prune=global_prune_by_percentage, sparsity=0.95, schedule=cubic_schedule, lr=0.05,
                           distilled=True),
                   target=TARGET_95, epochs=60, aim=AIM_95),
    ]  # fmt: skip


def _methods() -> list[Experiment]:
    """Four methods at four sparsities; the rows without training at 80 % are in the published table already."""
    rows = [_one_shot_row(METHODS_TABLE, scope, s) for scope in ("layer", "global") for s in (0.5, 0.9, 0.95)]
    rows += [
        _one_shot_row(METHODS_TABLE, scope, s, remeasure=True)
        for scope in ("layer", "global")
        for s in (0.5, 0.9, 0.95)
    ]
    for s in (0.5, 0.8, 0.9, 0.95):
        percent = round(100 * s)
        rows += [
            Experiment(f"freeze_retrain_{percent}", METHODS_TABLE, f"{percent} %: prune, freeze, retrain the others",
                       partial(freeze_and_retrain, sparsity=s), curve="prune, freeze, retrain the others"),
            Experiment(f"masked_retrain_{percent}", METHODS_TABLE, f"{percent} %: masked retraining, one threshold",
                       partial(one_shot, prune=global_prune_by_percentage, sparsity=s, finetune=True),
                       curve="masked retraining"),
        ]  # fmt: skip
    return rows


EXPERIMENTS = [*_published_rows(), *_methods()]
