"""Named checks for graded cells: compare now (open mode) or record now and compare elsewhere (sealed mode)."""

from course_utils.checks.core import Checks, Score
from course_utils.checks.sealed import judge

__all__ = ["Checks", "Score", "judge"]
