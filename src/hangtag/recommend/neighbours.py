"""Items that the same people take: item-based nearest neighbours and EASE."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

NUM_NEIGHBOURS = 200
SHRINKAGE = 5.0
EASE_PENALTY = 200.0
EASE_ITEMS = 5000
_BLOCK = 1024


def cosine_neighbours(
    taken: sp.csr_matrix, *, num_neighbours: int = NUM_NEIGHBOURS, shrinkage: float = SHRINKAGE
) -> sp.csr_matrix:
    """Return each item's nearest items by who took them, shape (num_items, num_items), no item near itself.

    s(i, j) = n(i, j) / (√(n(i) n(j)) + shrinkage), with n the number of people who took both or one. A large
    past counts less: a person's takings are weighed by 1 / log(2 + size). Memory: num_items x num_neighbours.

    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001); the shrinkage
    is that of Bell and Koren, "Scalable collaborative filtering with jointly derived neighborhood interpolation
    weights" (2007).
    """
    weight = 1 / np.log(2 + np.diff(taken.indptr))
    weighed = sp.diags(weight.astype(np.float32)) @ taken
    number = np.asarray(weighed.sum(0)).ravel()
    by_item = taken.T.tocsr()
    blocks = []
    for start in range(0, taken.shape[1], _BLOCK):
        both = (by_item[start : start + _BLOCK] @ weighed).tocoo()
        rows = both.row + start
        value = both.data / (np.sqrt(number[rows] * number[both.col]) + shrinkage)
        keep = rows != both.col
        block = sp.csr_matrix((value[keep], (both.row[keep], both.col[keep])), shape=both.shape)
        blocks.append(largest(block, num_neighbours))
    return sp.vstack(blocks, format="csr").astype(np.float32)


def largest(matrix: sp.csr_matrix, count: int) -> sp.csr_matrix:
    """Return `matrix` with the `count` largest values of each row only."""
    matrix = matrix.tocsr()
    keep = np.ones(matrix.nnz, np.bool_)
    for row in np.flatnonzero(np.diff(matrix.indptr) > count):
        start, end = matrix.indptr[row], matrix.indptr[row + 1]
        keep[start + np.argpartition(-matrix.data[start:end], count)[count:]] = False
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return sp.csr_matrix((matrix.data[keep], (rows[keep], matrix.indices[keep])), shape=matrix.shape)


def ease(
    taken: sp.csr_matrix,
    *,
    penalty: float = EASE_PENALTY,
    num_items: int = EASE_ITEMS,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> sp.csr_matrix:
    """Return the weights by which each item (row) speaks for each other (column), the largest of each row.

    The closed form of a linear autoencoder with a zero diagonal: P = (XᵀX + penalty·I)⁻¹, B = −P / diag(P),
    diagonal 0. Only the `num_items` most taken items take part: the inverse costs num_items³ operations and
    num_items² numbers. Weights below 0 are left out.

    Source: Steck, "Embarrassingly shallow autoencoders for sparse data" (2019), equations 6 to 8.
    """
    number = np.asarray(taken.sum(0)).ravel()
    chosen = np.sort(np.argsort(-number, kind="stable")[:num_items])
    chosen = chosen[number[chosen] > 0]
    part = taken[:, chosen]
    gram: NDArray[np.float32] = (part.T @ part).toarray().astype(np.float32)
    gram[np.diag_indices(len(chosen))] += penalty
    # Cholesky: the matrix is symmetric and positive definite. LAPACK fills one triangle only.
    factor, _ = scipy.linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, _ = scipy.linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    held = largest(sp.csr_matrix(np.maximum(weights, 0)), num_neighbours).tocoo()
    size = taken.shape[1]
    return sp.csr_matrix((held.data, (chosen[held.row], chosen[held.col])), shape=(size, size), dtype=np.float32)
