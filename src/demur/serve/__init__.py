"""A server with OpenAI's API that releases only what its guard has passed (extra ``serve``).

A request passes these files in order:

- ``app``, ``middleware``: the process and its routes; checks of all requests, such as API keys;
- ``schema``, ``request``: the body of a request, and the sequences that it asks for;
- ``model_engine``: one model in one thread, with its queue;
- ``scheduler``, ``running_batch``: the running batch, which sequences join and leave;
- ``moderation``, ``sequence``: the guard's verdicts, and the text that may be released;
- ``response``, ``http_errors``: the answer, whole or streamed.

Also: ``host`` and ``hosted`` (models with guards, options), ``monitoring``, ``rails`` (routes for
gateways), ``live_page``, ``replicas`` (copies on a Ray cluster).
"""
