"""What runs inside vLLM's server: an ASGI middleware in front of its app.

    app          the middleware: routes, keys, limits, drain; hands on to the handlers below
    settings     what `serve.server` writes and the middleware reads
    vocabularies the loaded vocabularies: from a request's product to the prompt that vLLM continues
    openai_requests, openai_answers
                 chat and text completions: the client's body to vLLM's, and vLLM's answer back
    answer_format
                 a client's response_format: the name of the answer's field, and limits
    tag          /v1/tag: products in, taggings out
    doors        keys, rate limits, load
    control      what the starting process tells: new keys, drain
    telemetry    Prometheus metrics

Nothing here imports vLLM: the app behind the middleware is asked through its own route `/v1/completions`.
"""
