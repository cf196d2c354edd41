"""Search behind OpenAI's API: any client thinks harder by changing a base URL.

`app.create_app()` is the whole server as an ASGI application. It calls a `Searcher` and knows nothing below it. What a
file here does is in its name: fields in, names to options, one search under way, objects out.
"""
