"""A made shop: customers of two tastes, who come back, buy again, and follow what is new."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

TASTES = ("garden", "kitchen")


def write_shop(folder: Path, *, num_users: int = 60, num_items: int = 40, days: int = 30) -> tuple[Path, Path]:
    """Write interactions.csv and items.jsonl; even users buy even items (garden), odd ones odd items (kitchen)."""
    generator = np.random.default_rng(0)
    items, interactions = folder / "items.jsonl", folder / "interactions.csv"
    with items.open("w") as stream:
        for item in range(num_items):
            tags = [TASTES[item % 2], ["red", "blue", "green"][item % 3]]
            row = {"id": f"i{item}", "title": f"{tags[1]} {tags[0]} thing {item // 4}", "tags": tags}
            stream.write(json.dumps(row) + "\n")
    with interactions.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user", "day", "item", "weight"])
        for user in range(num_users):
            favourite = user % 2 + 2 * (user % 5)
            for _ in range(12):
                item = (
                    favourite
                    if generator.random() < 0.3
                    else user % 2 + 2 * int(generator.integers(num_items // 2))
                )
                day = np.datetime64("2024-01-01") + int(generator.integers(days))
                writer.writerow([f"u{user}", str(day), f"i{item}", 1])
    return interactions, items
