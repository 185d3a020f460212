"""To and from a learning management system: Canvas, Moodle, Gradescope.

`table` reads a CSV file and changes single fields of it, `rosters` knows the three formats, `export` writes grades into
a roster; `archive` reads zip files that nobody can trust, `names` finds students in them, `collect` puts their
notebooks into submitted/.
"""
