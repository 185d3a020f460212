"""Where a trained file comes from, as the record beside it tells."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from course_utils import data_files
from course_utils.step_training import StepHistory
from course_utils.training_state import History


def provenance(path: Path, history: History | StepHistory) -> dict:
    """Say where, with what and how long a checkpoint was trained: the end of every record.

    Args:
        path: The checkpoint.
        history: Of its training.

    Returns:
        Entries of the record, the file's sha256 among them.
    """
    return {
        "trained_on": history.runtime,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "training_seconds": round(sum(history.seconds), 1),
        "sha256": data_files.file_sha256(path),
        "history": {key: value for key, value in asdict(history).items() if key != "runtime"},
    }
