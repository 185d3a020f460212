"""The published experiments, run at the published setting: `course experiment NAME`, `course results`.

`catalogue` names them, one for each row of a published table; `pruning` and `quantization` say how they are
prepared; `runner` trains, resumes and records; `results` turns the records into docs/results.md and checks them again.
"""
