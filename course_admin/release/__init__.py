"""The students' bundle: what `course release` writes.

`bundle` puts it together, `needs` finds out which labs would miss a solution that the bundle does not hold,
`environment` writes pyproject.toml, environment.yml and README.md for students.
"""
