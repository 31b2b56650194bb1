"""Reductions of rows that belong together, by an integer id a row.

An id outside [0, num_segments) belongs to no segment: its row is dropped, its cotangent is 0. The number of
segments is static; by default there are as many as rows, because under jit a shape cannot depend on the ids.
(The cotangent of a row is a read of its segment's.)
"""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Integers, Normal, Point
from .._checks import check_cotangent
from .._specs import Spec
from ._linear import linear

Data = Float[Array, "rows *features"]
Ids = Int[Array, " rows"]
Segments = Float[Array, "segments *features"]
Number = int | None


def _number(rule: str, ids: jax.Array, num_segments: Number) -> int:
    if num_segments is None:
        return ids.shape[0]
    if isinstance(num_segments, bool) or not isinstance(num_segments, int) or num_segments < 0:
        raise ValueError(
            f"{rule}: num_segments must be a whole number from 0 on, or None for the number of rows, got "
            f"{num_segments!r}."
        )
    return num_segments


def _summed(data: jax.Array, ids: jax.Array, number: int) -> jax.Array:
    # A negative index would count from the end.
    ids = jnp.where(ids < 0, number, ids)
    return jnp.zeros((number, *data.shape[1:]), data.dtype).at[ids].add(data, mode="drop")


def _read(segments: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Every row's own segment, 0 for a row that is in none: the transpose of `_summed`."""
    ids = jnp.where(segment_ids < 0, segments.shape[0], segment_ids)
    return jnp.take(segments, ids, axis=0, mode="fill", fill_value=0)


def _sizes(data: jax.Array | Spec, ids: jax.Array, number: int) -> jax.Array:
    """The number of rows in every segment, one at least, to be divided by."""
    size = _summed(jnp.ones(ids.shape, jnp.promote_types(data.dtype, jnp.float32)), ids, number)
    return jnp.where(size == 0, 1, size).reshape(-1, *(1,) * (len(data.shape) - 1))


def _members(ids: jax.Array, number: Number, ndim: int) -> jax.Array:
    """For the references: which row is in which segment, as a mask (segments, rows, 1, ...)."""
    inside = ids == jnp.arange(len(ids) if number is None else number)[:, None]
    return inside.reshape(*inside.shape, *(1,) * (ndim - 1))


def _segment_sum(data: Data, segment_ids: Ids, *, num_segments: Number = None) -> Segments:
    """The sum of the rows of every segment, 0 for an empty one, as `jax.ops.segment_sum`."""
    return _summed(upcast(data), segment_ids, _number("segment_sum", segment_ids, num_segments))


_SAME = Point({"segment_ids": 0.0})
_OUTSIDE = Point({"segment_ids": 100.0}, {"data": 0.0})
_NEGATIVE = Point({"segment_ids": (-1.0, 0.0)})
_DOMAIN = {"data": Normal(), "segment_ids": Integers(0, "rows")}
_POINTS = {"one segment": _SAME, "all outside": _OUTSIDE, "negative id": _NEGATIVE}
_SETTINGS = ({"num_segments": 2},)


def _sum_reference(data: Data, segment_ids: Ids, num_segments: Number = None) -> Segments:
    return jnp.where(_members(segment_ids, num_segments, data.ndim), data, 0).sum(1)


def _mean_reference(data: Data, segment_ids: Ids, num_segments: Number = None) -> Segments:
    members = _members(segment_ids, num_segments, data.ndim)
    return jnp.where(members, data, 0).sum(1) / jnp.maximum(members.sum(1), 1)


segment_sum = linear(
    _segment_sum,
    _read,
    y="y_s = Σ_(r: i_r = s) x_r",
    x_ct="x̄_r = ȳ_(i_r)",
    because="every row reads the cotangent of the segment it was added to",
    reference=_sum_reference,
    domain=_DOMAIN,
    points=_POINTS,
    settings=_SETTINGS,
    saves="i",
)


def _segment_mean(data: Data, segment_ids: Ids, *, num_segments: Number = None) -> Segments:
    """The mean of the rows of every segment, 0 for an empty one."""
    number = _number("segment_mean", segment_ids, num_segments)
    return _summed(upcast(data), segment_ids, number) / _sizes(data, segment_ids, number)


def _read_shares(y_ct: Segments, data: Spec, segment_ids: Ids) -> jax.Array:
    return _read(upcast(y_ct) / _sizes(data, segment_ids, y_ct.shape[0]), segment_ids)


segment_mean = linear(
    _segment_mean,
    _read_shares,
    y="y_s = 1/n_s Σ_(r: i_r = s) x_r",
    x_ct="x̄_r = ȳ_(i_r) / n_(i_r)",
    because="as of the sum, with the same 1/n",
    reference=_mean_reference,
    domain=_DOMAIN,
    points=_POINTS,
    settings=_SETTINGS,
    saves="i",
)


def segment_max_fwd(
    data: Data, segment_ids: Ids, *, num_segments: Number = None
) -> tuple[Segments, tuple[Data, Ids, Segments]]:
    """The maximum of the rows of every segment, elementwise, -∞ for an empty one, as `jax.ops.segment_max`.

    Forward:     y_s = max_(r: i_r = s) x_r
    Backward:    x̄_r = [x_r = y_s] ȳ_s / k_s      with s = i_r, k_s the number of rows that attain it

    Derivation. Where one row attains it, y_s moves with that row. At a tie each of k takes 1/k, as in `max`.

    Saves x, i and y, all alive anyway; nothing of size rows × segments is formed.
    """
    number = _number("segment_max", segment_ids, num_segments)
    y = jax.ops.segment_max(data, jnp.where(segment_ids < 0, number, segment_ids), number)
    return y, (data, segment_ids, y)


def segment_max_bwd(
    residuals: tuple[Data, Ids, Segments], y_ct: Segments, *, num_segments: Number = None
) -> tuple[Data, None]:
    """x̄_r = [x_r = y_s] ȳ_s / k_s; ids have no cotangent."""
    del num_segments
    data, ids, y = residuals
    check_cotangent("segment_max", y_ct, y.shape, y.dtype)
    attained = data == _read(y, ids)
    count = _summed(upcast(attained.astype(data.dtype)), ids, y.shape[0])
    share = upcast(y_ct) / jnp.where(count == 0, 1, count)
    return jnp.where(attained, _read(share, ids), 0).astype(data.dtype), None


def _max_reference(data: Data, segment_ids: Ids, num_segments: Number = None) -> Segments:
    members = _members(segment_ids, num_segments, data.ndim)
    return jnp.where(members, data, -jnp.inf).max(1)


segment_max = Rule(
    segment_max_fwd,
    segment_max_bwd,
    reference=_max_reference,
    domain={"data": Distinct(), "segment_ids": Integers(0, "rows")},
    points=_POINTS | {"tie": Point({"data": 2.0, "segment_ids": 0.0}, {"data": 0.2}, smooth=False)},
    settings=_SETTINGS,
    sizes=({"rows": 5},),
    formula="y_s = max x_r; x̄_r = [x_r = y_s] ȳ_s / k_s",
    saves="x, i, y",
)


def segment_softmax_fwd(
    data: Data, segment_ids: Ids, *, num_segments: Number = None
) -> tuple[Data, tuple[Data, Ids]]:
    """Softmax over the rows of every segment: attention over the edges of a graph.

    Forward:     q_r = e^(x_r - M_s) / Σ_(r′: i_r′ = s) e^(x_r′ - M_s)      s = i_r, M_s the segment's maximum
    Backward:    x̄_r = q_r (q̄_r - Σ_(r′: i_r′ = s) q_r′ q̄_r′)

    Derivation. That of softmax, segment by segment. A row in no segment has q = 0 and x̄ = 0.

    Saves q and i.
    """
    x, number = upcast(data), _number("segment_softmax", segment_ids, num_segments)
    inside = (segment_ids >= 0) & (segment_ids < number)
    inside = inside.reshape(-1, *(1,) * (x.ndim - 1))
    top = jax.ops.segment_max(x, jnp.where(segment_ids < 0, number, segment_ids), number)
    top = _read(jnp.where(jnp.isfinite(top), top, 0), segment_ids)
    e = jnp.where(inside, jnp.exp(jnp.where(inside, x - top, 0)), 0)
    total = _read(_summed(e, segment_ids, number), segment_ids)
    q = (e / jnp.where(total == 0, 1, total)).astype(data.dtype)
    return q, (q, segment_ids)


def segment_softmax_bwd(
    residuals: tuple[Data, Ids], q_ct: Data, *, num_segments: Number = None
) -> tuple[Data, None]:
    """x̄_r = q_r (q̄_r - Σ q_r′ q̄_r′); ids have no cotangent."""
    q, ids = residuals
    check_cotangent("segment_softmax", q_ct, q.shape, q.dtype)
    q, ct, number = upcast(q), upcast(q_ct), _number("segment_softmax", ids, num_segments)
    return (q * (ct - _read(_summed(q * ct, ids, number), ids))).astype(q_ct.dtype), None


def _softmax_reference(data: Data, segment_ids: Ids, num_segments: Number = None) -> Data:
    members = _members(segment_ids, num_segments, data.ndim)
    return jnp.where(
        members,
        jax.nn.softmax(
            jnp.broadcast_to(data, jnp.broadcast_shapes(members.shape, data.shape)), axis=1, where=members
        ),
        0,
    ).sum(0)


segment_softmax = Rule(
    segment_softmax_fwd,
    segment_softmax_bwd,
    reference=_softmax_reference,
    domain={"data": Normal(2.0), "segment_ids": Integers(0, "rows")},
    points=_POINTS | {"saturated": Point({"data": (1e4, 0.0)})},
    settings=_SETTINGS,
    formula="q_r = softmax of x over the rows of segment i_r; x̄ = q ⊙ (q̄ - Σ_s q q̄)",
    saves="q, i",
)
