"""The kinds of cells, one a file, and the graph that lists them all."""
