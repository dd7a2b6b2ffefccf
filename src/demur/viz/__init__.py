"""Figures, tables, the interactive replay and the report, made from data alone, never from a model.

- ``figures``: sigma trajectories, internal recovery rates and the discriminant view, as SVG.
- ``tables``: one table, as HTML, CSV or for the terminal.
- ``replay``: a generation step by step: tokens, drafts and signal.
- ``report``: all of them in one HTML file that needs no network.
"""
