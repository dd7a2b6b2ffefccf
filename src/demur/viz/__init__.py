"""Figures, tables, the interactive replay and the report, made from data alone, never from a model.

- ``figures``: sigma trajectories, internal recovery rates, the discriminant view and curves, as SVG.
- ``tables``: one table as HTML, CSV, LaTeX or plain text.
- ``replay``: a generation step by step: tokens, drafts and signal.
- ``report_page``: all of them in one HTML file that needs no network.
"""
