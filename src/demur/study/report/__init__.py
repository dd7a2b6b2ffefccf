"""From results to the page: evidence, findings, tables with their figures, files."""
