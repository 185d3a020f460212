"""What the course's notebooks import: data, models, training, accounting, plots, checks and reference implementations.

One module per topic. The package itself imports nothing, so that a lab which needs NumPy alone never waits for torch.
"""
