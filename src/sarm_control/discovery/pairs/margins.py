"""Exact margin contributions: how much each latent raises chosen above rejected answers, per prompt.

    c_pi = w_i (mean over chosen of z_i - mean over rejected of z_i)

The sum over i is the mean margin of prompt p. Of a reward model with a head of its own, the residual is one
more term of that sum; its constant cancels.

Shapes: `P` prompts, `N` answers (`Nc` chosen, `Nr` rejected), `L` latents, `M` chosen latents.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.control import Watched
from sarm_control.errors import DataError
from sarm_control.reward_model import RESIDUAL, SparseLatents

Vector = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class PairLatents:
    """Latents of chosen and rejected answers, grouped by prompt; made by `pair_latents`.

    Args:
        chosen: [Nc, L] float64 `scipy.sparse.csr_array`; a stored entry is an active latent.
        rejected: [Nr, L], the same.
        chosen_prompt: [Nc] the prompt of each chosen answer, `0..P-1`; every prompt has one.
        rejected_prompt: [Nr] the same for rejected answers.
        head: [L] float64 head weights.
        chosen_length: [Nc] length of each chosen answer in tokens, where it is known.
        rejected_length: [Nr] the same for rejected answers.
        chosen_residual: [Nc] what no latent holds of each chosen answer's reward; None for a SARM.
        rejected_residual: [Nr] the same for rejected answers.
    """

    chosen: Any
    rejected: Any
    chosen_prompt: Index
    rejected_prompt: Index
    head: Vector
    chosen_length: Vector | None = None
    rejected_length: Vector | None = None
    chosen_residual: Vector | None = None
    rejected_residual: Vector | None = None

    @property
    def prompts(self) -> int:
        """P, the number of prompts."""
        return int(self.chosen_prompt.max()) + 1 if len(self.chosen_prompt) else 0

    def take_prompts(self, prompts: ArrayLike) -> "PairLatents":
        """Only the answers to these prompts; prompt j of the result is `prompts[j]`."""
        wanted = np.asarray(prompts, dtype=np.int64)
        place = np.full(self.prompts, -1, dtype=np.int64)
        place[wanted] = np.arange(len(wanted))
        chosen, rejected = place[self.chosen_prompt], place[self.rejected_prompt]
        return replace(
            self,
            chosen=self.chosen[chosen >= 0],
            rejected=self.rejected[rejected >= 0],
            chosen_prompt=chosen[chosen >= 0],
            rejected_prompt=rejected[rejected >= 0],
            chosen_length=_where(self.chosen_length, chosen >= 0),
            rejected_length=_where(self.rejected_length, rejected >= 0),
            chosen_residual=_where(self.chosen_residual, chosen >= 0),
            rejected_residual=_where(self.rejected_residual, rejected >= 0),
        )

    def swap(self) -> "PairLatents":
        """The same answers with chosen and rejected exchanged."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_prompt=self.rejected_prompt,
            rejected_prompt=self.chosen_prompt,
            chosen_length=self.rejected_length,
            rejected_length=self.chosen_length,
            chosen_residual=self.rejected_residual,
            rejected_residual=self.chosen_residual,
        )


class Values(NamedTuple):
    """Dense values of one latent: [Nc] over chosen and [Nr] over rejected answers."""

    chosen: Vector
    rejected: Vector


class Rates(NamedTuple):
    """Mean over prompts of the share of answers in which each latent is active, [L] each."""

    chosen: Vector
    rejected: Vector


def pair_latents(
    chosen: Any,
    rejected: Any,
    chosen_prompt: ArrayLike,
    rejected_prompt: ArrayLike,
    head: ArrayLike,
    *,
    chosen_length: ArrayLike | None = None,
    rejected_length: ArrayLike | None = None,
    chosen_residual: ArrayLike | None = None,
    rejected_residual: ArrayLike | None = None,
) -> PairLatents:
    """Checks and groups latents by prompt.

    Args:
        chosen: latents of the chosen answers: `SparseLatents`, whose stored zeros are active, scipy
            sparse or an [Nc, L] array.
        rejected: latents of the rejected answers, [Nr, L].
        chosen_prompt: [Nc] the prompt of each chosen answer: numbers or texts. Equal labels are one prompt.
        rejected_prompt: [Nr] the prompt of each rejected answer.
        head: [L] head weights.
        chosen_length: [Nc] tokens of each chosen answer; both lengths or neither.
        rejected_length: [Nr] tokens of each rejected answer.
        chosen_residual: [Nc] residuals of a reward model with a head of its own; both sides or neither.
        rejected_residual: [Nr] likewise.

    Raises:
        DataError: sizes that do not fit, a NaN or infinite number, prompt labels that cannot be sorted, or
            a prompt without a chosen or without a rejected answer.
    """
    good, bad = _csr(chosen, "chosen"), _csr(rejected, "rejected")
    weight = np.asarray(head, dtype=np.float64).reshape(-1)
    good_ids, bad_ids = np.asarray(chosen_prompt), np.asarray(rejected_prompt)
    for name, matrix, ids in (("chosen", good, good_ids), ("rejected", bad, bad_ids)):
        if matrix.shape[1] != len(weight):
            raise DataError(f"{name} latents have {matrix.shape[1]} columns, the head {len(weight)} weights")
        if ids.shape != (matrix.shape[0],):
            raise DataError(
                f"{name}_prompt has shape {ids.shape}, wants one prompt for each of the "
                f"{matrix.shape[0]} {name} answers"
            )
        if not np.isfinite(matrix.data).all():
            raise DataError(f"{name} latents hold a NaN or an infinite value")
    if not np.isfinite(weight).all():
        raise DataError("the head holds a NaN or an infinite weight")
    _check_labels(good_ids, bad_ids)
    _check_both_sides(good_ids, bad_ids)
    # both sides have the same labels, as was checked above
    labels = np.unique(good_ids)
    return PairLatents(
        good,
        bad,
        np.searchsorted(labels, good_ids),
        np.searchsorted(labels, bad_ids),
        weight,
        _lengths(chosen_length, len(good_ids), "chosen", rejected_length is not None),
        _lengths(rejected_length, len(bad_ids), "rejected", chosen_length is not None),
        _residuals(chosen_residual, len(good_ids), "chosen", rejected_residual is not None),
        _residuals(rejected_residual, len(bad_ids), "rejected", chosen_residual is not None),
    )


def _where(values: Vector | None, wanted: NDArray[np.bool_]) -> Vector | None:
    return None if values is None else values[wanted]


def _residuals(values: ArrayLike | None, answers: int, name: str, other_given: bool) -> Vector | None:
    if values is None:
        if other_given:
            raise DataError(f"{name}_residual is missing: give the residuals of both sides or of neither")
        return None
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (answers,) or not np.isfinite(found).all():
        raise DataError(f"{name}_residual wants one finite number for each of the {answers} {name} answers")
    return found


def _lengths(lengths: ArrayLike | None, answers: int, name: str, other_given: bool) -> Vector | None:
    if lengths is None:
        if other_given:
            raise DataError(f"{name}_length is missing: give the lengths of both sides or of neither")
        return None
    tokens = np.asarray(lengths, dtype=np.float64)
    if tokens.shape != (answers,) or not (tokens >= 0).all() or not np.isfinite(tokens).all():
        raise DataError(f"{name}_length wants one number >= 0 for each of the {answers} {name} answers")
    return tokens


def _check_labels(chosen: NDArray[Any], rejected: NDArray[Any]) -> None:
    text = [ids.dtype.kind in "US" for ids in (chosen, rejected)]
    numbers = [ids.dtype.kind in "biuf" for ids in (chosen, rejected)]
    try:
        # numpy would silently turn the numbers into texts
        if any(text) and any(numbers) and len(chosen) and len(rejected):
            raise TypeError("one side has texts, the other numbers")
        np.sort(np.concatenate([chosen, rejected]))
    except TypeError as error:
        raise DataError(
            f"the labels of the prompts cannot be sorted: {error}",
            hint="label them with numbers or with texts",
        ) from None


def _check_both_sides(chosen: NDArray[Any], rejected: NDArray[Any]) -> None:
    for ids, others, missing in ((chosen, rejected, "rejected"), (rejected, chosen, "chosen")):
        alone = np.setdiff1d(ids, others)
        if len(alone):
            raise DataError(f"prompt {alone[0]} has no {missing} answer ({len(alone)} such prompts)")


def _csr(latents: Any, name: str) -> Any:
    from scipy.sparse import csr_array, issparse

    if isinstance(latents, SparseLatents):
        # its stored zeros stay: a latent that TopK kept at 0 is active
        return latents.to_scipy().astype(np.float64)
    is_sparse = issparse(latents)
    if is_sparse:
        # scipy adds repeated entries and reads a stored 0 as none; astype copies, so the input stays as it is
        matrix: Any = csr_array(latents).astype(np.float64)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix
    dense = np.asarray(latents, dtype=np.float64)
    if dense.ndim != 2:
        raise DataError(f"{name} latents have shape {dense.shape}, want [answers, latents]")
    return csr_array(dense)


def margin_contributions(pairs: PairLatents) -> Any:
    """[P, L] float64 `scipy.sparse.csr_array` of c_pi; its row sums are the latents' part of mean margins."""
    from scipy.sparse import csr_array

    chosen = averager(pairs.chosen_prompt, pairs.prompts) @ pairs.chosen
    rejected = averager(pairs.rejected_prompt, pairs.prompts) @ pairs.rejected
    # means first and the weight once: scaling every answer's latents would cost a pass over all of them
    return csr_array((chosen - rejected) @ diagonal(pairs.head))


def residual_margins(pairs: PairLatents) -> Vector:
    """[P] the residual's part of each prompt's mean margin, in reward units; 0 for a SARM."""
    if pairs.chosen_residual is None or pairs.rejected_residual is None:
        return np.zeros(pairs.prompts)
    chosen = averager(pairs.chosen_prompt, pairs.prompts) @ pairs.chosen_residual
    return np.asarray(chosen - averager(pairs.rejected_prompt, pairs.prompts) @ pairs.rejected_residual)


def prompt_margins(pairs: PairLatents) -> Vector:
    """[P] each prompt's mean margin: all latents' contributions and the residual's."""
    return np.asarray(margin_contributions(pairs).sum(axis=1)).ravel() + residual_margins(pairs)


def residual_alone(pairs: PairLatents) -> PairLatents:
    """The same answers with the residual as their only latent, of weight 1, so that it is tested like one."""
    if pairs.chosen_residual is None or pairs.rejected_residual is None:
        raise DataError("a SARM has no residual")
    return replace(
        pairs,
        chosen=_csr(pairs.chosen_residual[:, None], "chosen"),
        rejected=_csr(pairs.rejected_residual[:, None], "rejected"),
        head=np.ones(1),
        chosen_residual=None,
        rejected_residual=None,
    )


def mean_differences(pairs: PairLatents) -> Vector:
    """[L] mean over prompts of mean z over chosen minus mean z over rejected answers."""
    chosen, rejected = (
        np.asarray((averager(prompt, pairs.prompts) @ matrix).sum(axis=0)).ravel()
        for matrix, prompt in _sides(pairs)
    )
    return np.asarray(chosen - rejected) / max(pairs.prompts, 1)


def rewards(pairs: PairLatents) -> Values:
    """The reward of every chosen and every rejected answer, float64, without the constant."""
    sides = ((pairs.chosen, pairs.chosen_residual), (pairs.rejected, pairs.rejected_residual))
    return Values(*(z @ pairs.head + (0.0 if rest is None else rest) for z, rest in sides))


def pair_accuracy(pairs: PairLatents) -> Vector:
    """[P] share of a prompt's (chosen, rejected) pairs in which chosen has the strictly higher reward."""
    all_rewards = rewards(pairs)
    good = _grouped(all_rewards.chosen, pairs.chosen_prompt, pairs.prompts)
    bad = _grouped(all_rewards.rejected, pairs.rejected_prompt, pairs.prompts)
    return np.array([(a[:, None] > b).mean() for a, b in zip(good, bad, strict=True)])


def _grouped(values: Vector, prompt: Index, prompts: int) -> list[Vector]:
    # answers of a prompt need not be adjacent: sorted by prompt, they are cut where the counts end
    order = np.argsort(prompt, kind="stable")
    ends = np.cumsum(np.bincount(prompt, minlength=prompts))
    return np.split(values[order], ends[:-1])


def firing_rates(pairs: PairLatents) -> Rates:
    """How often each latent is active in chosen and in rejected answers; every prompt has the same weight."""
    shares = (
        np.asarray((averager(prompt, pairs.prompts) @ _pattern(matrix)).sum(axis=0)).ravel()
        for matrix, prompt in _sides(pairs)
    )
    return Rates(*(share / pairs.prompts for share in shares))


def active_prompts(pairs: PairLatents) -> Index:
    """[L] the number of prompts in which a latent is active in any answer, chosen or rejected."""
    # patterns are never negative, so no sum cancels to 0
    seen = sum(averager(prompt, pairs.prompts) @ _pattern(matrix) for matrix, prompt in _sides(pairs))
    return np.bincount(seen.tocsr().indices, minlength=len(pairs.head))


def auroc(pairs: PairLatents, latents: ArrayLike) -> Vector:
    """[M] probability that z is larger in a chosen than in a rejected answer (ties count half).

    All answers are pooled; 0.5 means that the latent says nothing about the preference.
    """
    wanted = np.asarray(latents, dtype=np.int64)
    chosen, rejected = pairs.chosen[:, wanted].tocsc(), pairs.rejected[:, wanted].tocsc()
    return np.array([_auroc(_stored(chosen, j), _stored(rejected, j)) for j in range(len(wanted))])


def auroc_of(present: Vector, absent: Vector) -> float:
    """Probability that a value of `present` exceeds one of `absent`, neither empty; ties count half."""
    return _auroc(_Stored(present, len(present)), _Stored(absent, len(absent)))


class _Stored(NamedTuple):
    values: Vector
    total: int


def _stored(matrix: Any, column: int) -> _Stored:
    return _Stored(matrix.data[matrix.indptr[column] : matrix.indptr[column + 1]], matrix.shape[0])


def _auroc(chosen: _Stored, rejected: _Stored) -> float:
    # histograms over the distinct values; the entries that are not stored count at 0
    # scikit-learn's roc_auc_score takes no sparse columns, and a millisecond or more for each of thousands
    levels = np.unique(np.concatenate([chosen.values, rejected.values, [0.0]]))
    good, bad = _histogram(chosen, levels), _histogram(rejected, levels)
    # for each level the share of rejected answers below it; those at it tie and count half
    below = np.concatenate([[0.0], np.cumsum(bad)[:-1]])
    return float(good @ (below + bad / 2))


def _histogram(side: _Stored, levels: Vector) -> Vector:
    counts = np.bincount(np.searchsorted(levels, side.values), minlength=len(levels)).astype(np.float64)
    counts[np.searchsorted(levels, 0.0)] += side.total - len(side.values)
    return counts / side.total


def latent_values(pairs: PairLatents, latent: int) -> Values:
    """The value of one latent in every answer, zeros included."""
    return Values(*(matrix[:, [latent]].toarray().ravel() for matrix, _ in _sides(pairs)))


def watched_values(pairs: PairLatents, watched: Watched) -> Values:
    """What a penalty on this reads in every answer: the value of a latent, or the residual.

    Raises:
        DataError: the residual of a SARM.
    """
    if watched != RESIDUAL:
        return latent_values(pairs, watched)
    return latent_values(residual_alone(pairs), 0)


def _sides(pairs: PairLatents) -> tuple[tuple[Any, Index], tuple[Any, Index]]:
    return (pairs.chosen, pairs.chosen_prompt), (pairs.rejected, pairs.rejected_prompt)


def averager(prompt: Index, prompts: int) -> Any:
    """[P, N] `csr_array` whose row p holds 1/n at each of prompt p's n answers."""
    from scipy.sparse import csr_array

    count = np.bincount(prompt, minlength=prompts)
    return csr_array((1 / count[prompt], (prompt, np.arange(len(prompt)))), shape=(prompts, len(prompt)))


def diagonal(values: Vector) -> Any:
    """[L, L] `dia_array` that scales a matrix's L columns; `diags_array` is missing from scipy 1.11."""
    from scipy.sparse import dia_array

    return dia_array((np.asarray(values, dtype=np.float64)[None], [0]), shape=(len(values), len(values)))


def _pattern(matrix: Any) -> Any:
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(matrix.data)), matrix.indices, matrix.indptr), shape=matrix.shape)
