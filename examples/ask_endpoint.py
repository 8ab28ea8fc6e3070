"""Ask a running endpoint with the package openai: the tags as JSON, and as the client's own pydantic model.

    .venv/bin/python examples/ask_endpoint.py http://127.0.0.1:8000/v1

The server is one as in section 5 of docs/quickstart.md. The key is read from HANGTAG_KEY; a server without keys
takes any. The first line that it prints is the content as it comes, the second at most two tags, in a field that
the client named. Which tags they are is the model's judgement, here the small base model's:

    {"tags":["red","waterproof","shoes","vegan"]}
    ['red', 'mug']
"""

from __future__ import annotations

import os
import sys

import openai
from pydantic import BaseModel

TEXT = "Red trail shoe with a waterproof membrane, vegan"


class Labels(BaseModel):
    """What this client calls the tags of a product."""

    labels: list[str]


def main(url: str) -> None:
    """Ask twice and print the answers."""
    client = openai.OpenAI(base_url=url, api_key=os.environ.get("HANGTAG_KEY", "none"))
    plain = client.chat.completions.create(model="hangtag", messages=[{"role": "user", "content": TEXT}])
    print(plain.choices[0].message.content)
    parsed = client.chat.completions.parse(
        model="hangtag",
        messages=[{"role": "user", "content": TEXT}],
        response_format=Labels,
        extra_body={"vllm_xargs": {"hangtag_max_tags": 2}},
    )
    labels = parsed.choices[0].message.parsed
    print(labels.labels if labels else "no tags")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
