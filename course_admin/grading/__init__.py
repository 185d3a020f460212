"""Grading a class: collect, repair, execute, verify, record. `results` holds what one submission's grading ends in."""
