"""GPTQ as it was published, in float64: what is left of a row is changed after each of its values."""

import numpy as np

DAMPING = 0.01


def round_columns(w, hessian, nearest):
    """Codes [N, K] of w [N, K] for the second moments [K, K] of its inputs.

    nearest: from a column's number and values [N] to their codes and what these mean.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")  # columns of large inputs first
    damped = hessian + DAMPING * np.diag(hessian).mean() * np.eye(len(hessian))
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    upper = np.linalg.cholesky(inverse).T
    left = w.astype(np.float64)[:, order]
    codes = np.zeros(w.shape, np.uint8)
    for i, j in enumerate(order):
        codes[:, j], meant = nearest(j, left[:, i])
        left[:, i + 1 :] -= np.outer((left[:, i] - meant) / upper[i, i], upper[i, i + 1 :])
    return codes
