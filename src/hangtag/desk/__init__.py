"""The review desk: a page on which people check taggings, and the store that keeps what they decide.

Importing this package loads no heavy library; Starlette and uvicorn come with the extra `desk`.
"""
