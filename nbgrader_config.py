"""An ordinary nbgrader course: the source folder is solutions/, the release folder is labs/."""

from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ComputeChecksums,
    Execute,
    GetGrades,
    IgnorePattern,
    IncludeHeaderFooter,
    LimitOutput,
    LockCells,
    SaveAutoGrades,
    SaveCells,
)

from course_admin.nbgrader_plugins import FairOutputs, HideHiddenTests, NamedStubs, safe_markdown

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

# nbgrader's own list with FairOutputs before the points are read.
c.Autograde.autograde_preprocessors = [
    Execute,
    FairOutputs,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]

# Feedback shows the names, results and hints of checks, not the source of hidden ones.
c.GenerateFeedback.preprocessors = [GetGrades, HideHiddenTests, CSSHTMLHeaderPreprocessor]

# Written answers are shown by Formgrader and in nbgrader's feedback without scripts.
c.HTMLExporter.filters = {"markdown2html": safe_markdown}

c.ExecutePreprocessor.timeout = 600  # seconds a cell
c.ExecutePreprocessor.extra_arguments = ["--IPKernelApp.log_level=ERROR"]
c.OverwriteCells.add_missing_cells = True  # a deleted graded cell comes back and is run
