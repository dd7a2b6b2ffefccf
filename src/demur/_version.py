"""The version, for the package and for whatever writes it down."""

__version__ = "0.1.0"
