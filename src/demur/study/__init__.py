"""Studies, in reading order: ``plan``, ``engine``, ``work``, ``report``.

Each package imports only from those before it. ``run`` puts them together.
"""
