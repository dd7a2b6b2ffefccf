"""A server that speaks OpenAI's API and lets nothing out that its guard has not passed (extra
``serve``).

- ``host``: models and guards that belong together; ``app``: routes; ``lifetime``: the process.
- ``engine``: one model in one thread; ``rolling`` and ``grouped``: batches that requests join.
- ``answering``, ``judge``, ``answer``, ``speech``: what may leave, and when.
- ``wire``, ``asking``, ``bodies``, ``streams``, ``refusals``: requests in, answers out.
- ``keys``, ``limits``, ``envelope``, ``metrics``, ``page``; ``classify`` and ``rails`` for other tools.
"""
