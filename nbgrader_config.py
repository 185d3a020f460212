"""An ordinary nbgrader course: the source folder is solutions/, the release folder is labs/."""

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ComputeChecksums,
    GetGrades,
    IncludeHeaderFooter,
    LockCells,
    SaveCells,
)

from course_admin.nbgrader_plugins import HideHiddenTests, NamedStubs

c = get_config()  # noqa: F821 (nbgrader defines it)

c.CourseDirectory.course_id = "compression-course"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "labs"

# nbgrader's own list with NamedStubs in place of ClearSolutions (and no test templates: none are used).
c.GenerateAssignment.preprocessors = [
    IncludeHeaderFooter,
    LockCells,
    NamedStubs,
    ClearOutput,
    CheckCellMetadata,
    ComputeChecksums,
    SaveCells,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
]

# Feedback shows the names, results and hints of checks, not the source of hidden ones.
c.GenerateFeedback.preprocessors = [GetGrades, HideHiddenTests, CSSHTMLHeaderPreprocessor]

c.ExecutePreprocessor.timeout = 600  # seconds a cell
c.ExecutePreprocessor.extra_arguments = ["--IPKernelApp.log_level=ERROR"]
c.OverwriteCells.add_missing_cells = True  # a deleted graded cell comes back and is run
