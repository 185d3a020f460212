"""What instructors and continuous integration run: build, release, grade, report, and the `course` command."""
