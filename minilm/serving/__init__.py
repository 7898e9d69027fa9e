"""A model behind HTTP, by OpenAI's interface: the thread that computes, requests and responses, the application.

`engine`, `text` and `protocol` need nothing but the library; `app` and `server` need the extra `serve`, and are
imported where they are used.
"""
