"""FolkRank: which tags weigh most in the graph of users, items and tags, seen from one user and one item."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.assignments import Assignments, Posts

NUM_ROUNDS = 15
DAMPING = 0.7


def folk_rank(past: Assignments, posts: Posts) -> NDArray[np.float32]:
    """Return FolkRank of every tag, shape (num_posts, num_tags).

    Weights flow over the graph of users, items and tags, whose edges count how many assignments hold both ends:
    w ← d·A·w + (1 − d)·p, with the preference p of user and item raised to as much as all nodes of their kind
    together. FolkRank is the fixed point with p minus the one without.

    Source: Jäschke et al., "Tag recommendations in social bookmarking systems" (2008), section 3.2.
    """
    num_users, num_items, num_tags = len(past.users), len(past.items), len(past.tags)
    nodes = num_users + num_items + num_tags
    ends = np.stack([past.user, num_users + past.item, num_users + num_items + past.tag])
    pairs = np.concatenate([ends[[0, 1]], ends[[0, 2]], ends[[1, 2]]], axis=1)
    edges = sp.csr_matrix((np.ones(pairs.shape[1], np.float32), pairs), shape=(nodes, nodes))
    edges = edges + edges.T
    flow = (edges @ sp.diags(1 / np.maximum(np.asarray(edges.sum(0)).ravel(), 1))).tocsr().astype(np.float32)
    wanted = np.full((nodes, len(posts) + 1), 1.0, np.float32)
    wanted[posts.user, np.arange(len(posts))] += num_users
    wanted[num_users + posts.item, np.arange(len(posts))] += num_items
    wanted /= wanted.sum(0)
    weight = wanted
    for _ in range(NUM_ROUNDS):
        weight = DAMPING * (flow @ weight) + (1 - DAMPING) * wanted
    tags = weight[num_users + num_items :]
    found: NDArray[np.float32] = (tags[:, :-1] - tags[:, -1:]).T
    return found
