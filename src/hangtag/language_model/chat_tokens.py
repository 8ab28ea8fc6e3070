"""From chat messages to token ids, with product text kept from becoming control tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hangtag.language_model.prompt import ChatPrompt


class ChatTokens:
    """Tokenises chat prompts with a Hugging Face tokenizer and its chat template.

    A text that spells an added token of the tokenizer (`<|im_end|>`, or the token of a tag) would turn into
    that token; a space after its first character keeps it text. A tokenizer without chat template gets a plain
    form: the messages, each under its role.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, added))) if added else None

    def encode(self, prompts: Sequence[ChatPrompt]) -> list[list[int]]:
        """Return the token ids of each prompt, up to where the model's answer begins."""
        texts = [self._render([self._as_text(message) for message in prompt.messages]) for prompt in prompts]
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, padding=False)["input_ids"]
        return ids

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self._tokenizer.chat_template is None:
            parts = [f"{message['role'].capitalize()}:\n{message['content']}\n\n" for message in messages]
            return "".join(parts) + "Assistant:\n"
        text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def _as_text(self, message: dict[str, str]) -> dict[str, str]:
        content = message["content"]
        if self._added is not None:
            content = self._added.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
        return {"role": message["role"], "content": content}
