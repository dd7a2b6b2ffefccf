"""A server with OpenAI's API that releases only what its guard has passed (extra ``serve``).

A request passes these files in order:

- ``app``, ``middleware``: the process and its routes, what all requests share (API keys);
- ``schema``, ``request``: the body of a request, and the sequences that it asks for;
- ``model_engine``: one model in one thread, with its queue;
- ``scheduler``, ``running_batch``: what runs, as a batch that sequences join and leave;
- ``moderation``, ``sequence``: what the guard says, and what text may be released;
- ``response``, ``http_errors``: the answer, whole or streamed.

Besides: ``host`` and ``hosted`` (models with guards, options), ``monitoring``, ``rails`` (routes for
gateways), ``live_page``, ``replicas`` (copies on a Ray cluster).
"""
