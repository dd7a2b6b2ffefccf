"""The tables of a study, one a file, each a pure function of its results."""
