"""demur inside other tools: one tool a file.

- ``inspect_ai``: a model provider with a guard, and a scorer that keeps the signal.
- ``notebook``: values shown in a notebook's cells.
- ``tracking``: metrics of a run for MLflow, Weights & Biases or any callback.
"""
