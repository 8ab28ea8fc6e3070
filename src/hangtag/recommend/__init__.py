"""Recommendation from behaviour and tags: products and tags for a customer, tags for an item.

`interactions` and `items` read what there is, `cut` tells future from past, `history` holds pasts; `popularity`,
`neighbours` and `content` score items, `features` joins them, `ranking` learns their weights, `recommender` is all
of it. `profile` speaks of tags, `assignments` of who gives which tag to which item. The formulas and their sources
are in docs/recommending.md.
"""
