"""Weights to codes: the nearest level for each, or column by column with the errors before fed back.

A level set is what is special about a format: `Grid`, `Table`, `Signs` and `Ternary`. It has

    fit(groups, ranges)         the scales of the rows of `Groups` as they are stored, and all else that their codes
                                depend on: arrays of one entry a row
    codes(rows, *fitted)        of the nearest levels, uint8, of the shape of rows
    integers(codes, *fitted)    the levels of codes, which have one dimension or two
"""

import numpy as np

from .progress import progress

BLOCK = 128  # columns whose errors are fed back among themselves one by one, and to all others by a matrix product
DAMPING = 0.01  # of the mean of a Hessian's diagonal, is added to that


def nearest_codes(groups, levels, fitted):
    """Of the nearest levels, uint8 of the shape of groups.rows."""
    codes = np.empty(groups.rows.shape, np.uint8)
    for part in groups.pieces():
        codes[part] = levels.codes(groups.rows[part], *(entries[part] for entries in fitted))
    return codes


def round_to_nearest(groups, levels, fitted):
    """Codes uint8 [N, K] of the nearest levels."""
    return groups.by_value(nearest_codes(groups, levels, fitted))


def round_with_feedback(groups, levels, fitted, hessian):
    """Codes uint8 [N, K] such that ``trace(E @ hessian @ E.T)`` of the error E becomes small.

    Columns are rounded one after another, those of the largest inputs first, each to the nearest levels of what the
    errors before it call for: GPTQ (E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, 2022, arXiv:2210.17323) with
    scales that are chosen beforehand, in the form of LDLQ, which finds the same (J. Chee, Y. Cai, V. Kuleshov,
    C. De Sa, "QuIP", 2023, arXiv:2307.13304). With a diagonal Hessian nothing is fed back.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    upper = upper_factor(hessian[np.ix_(order, order)])
    feedback = (upper / np.diag(upper)).astype(np.float32)
    columns = np.ascontiguousarray(groups.by_value(groups.rows).T[order])
    group_of = order // max(groups.size, 1)
    fitted = [np.ascontiguousarray(groups.by_group(entries).T) for entries in fitted]
    scales = fitted[0].astype(np.float32)
    error = np.zeros_like(columns)
    codes = np.empty(columns.shape, np.uint8)
    for start in progress(range(0, len(columns), BLOCK), -(-len(columns) // BLOCK), "feedback", "block"):
        block = slice(start, start + BLOCK)
        targets = columns[block] + feedback[:start, block].T @ error[:start]
        for j, target in enumerate(targets, start):
            target += feedback[start:j, j] @ error[start:j]
            own = [entries[group_of[j]] for entries in fitted]
            codes[j] = levels.codes(target[:, None], *own)[:, 0]
            error[j] = columns[j] - levels.integers(codes[j], *own) * scales[group_of[j]]
    return np.ascontiguousarray(codes[np.argsort(order)].T)


def upper_factor(hessian):
    """V, upper triangular, of the damped ``hessian = V @ V.T``."""
    damping = DAMPING * np.trace(hessian) / max(len(hessian), 1) or 1
    damped = hessian + damping * np.eye(len(hessian))
    try:
        return np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    except np.linalg.LinAlgError:
        raise ValueError("hessian: must be positive semidefinite") from None


def dequantized(groups, levels, fitted, codes):
    """float32 [N, K]: the values of codes [N, K]."""
    scales = fitted[0].astype(np.float32)[:, None]
    return groups.by_value(levels.integers(groups.by_row(codes), *fitted) * scales)


def output_error(error, hessian):
    """``trace(error @ hessian @ error.T)``: the squared error of a row of outputs, on average."""
    return float(np.vdot(error @ hessian, error))
