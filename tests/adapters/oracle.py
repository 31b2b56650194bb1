"""What is per example of any loss, against `vmap` of `jax.grad`."""

import jax
import numpy as np
from jax import numpy as jnp

from funcbp import adapters
from funcbp.factors import Factor
from funcbp.verify._pairs import evaluated

FEW = ("grads", "norms", "squared_norms")
CLIPPED = (*FEW, "clipped")
MORE = (*CLIPPED, "gram", "second_moment", "per_example_grads")


def is_array(leaf):
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def filled(specs):
    """Numbers for shapes: nothing has to be compiled to initialize a module."""
    return jax.tree.map(lambda s: normal(*s.shape) if isinstance(s, jax.ShapeDtypeStruct) else s, specs)


def partition(params):
    """The parameters as a list, and the way back."""
    leaves, treedef = jax.tree.flatten(params)
    own = [k for k, leaf in enumerate(leaves) if is_array(leaf)]

    def tree(arrays):
        return treedef.unflatten(
            [arrays[own.index(k)] if k in own else leaf for k, leaf in enumerate(leaves)]
        )

    return [leaves[k] for k in own], tree


def everything(loss, params, examples, in_axes, names):
    """What can be had under these names, in one compilation; the same from the gradients of all examples."""
    arrays, tree = partition(params)
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(examples)
    own = [e for e, axis in zip(examples, axes, strict=True) if axis == 0]
    static = {}

    def arguments(own):
        rest = iter(own)
        return [e if axis is None else next(rest) for e, axis in zip(examples, axes, strict=True)]

    def mine(arrays, own):
        collect = ("factors", *(name for name in names if name != "clipped"))
        result = adapters.per_example(loss, collect=collect, in_axes=in_axes)(tree(arrays), *arguments(own))
        static["fallback"] = result.fallback
        factors = jax.tree.leaves(result.factors, is_leaf=lambda f: isinstance(f, Factor))
        static["factors"] = factors = [f for f in factors if isinstance(f, Factor)]
        found = {
            name: jax.tree.leaves(getattr(result, name)) for name in ("value", "per_example", *collect[1:])
        }
        if "clipped" in names:
            clip = adapters.clipped_grad(loss, max_norm=1.0, in_axes=in_axes)
            clipped = clip(tree(arrays), *arguments(own))
            found |= {"clipped": jax.tree.leaves(clipped.grads), "coefficients": [clipped.coefficients]}
        return found

    def theirs(arrays, own):
        def one(arrays, own):
            return loss(tree(arrays), *arguments(own))

        losses, each = jax.vmap(jax.value_and_grad(one), (None, 0))(arrays, own)
        squares = [jnp.square(g).reshape(g.shape[0], -1).sum(1) for g in each]
        norms = jnp.sqrt(sum(squares))
        expected = {"value": [losses.mean()], "per_example": [losses], "norms": [norms]}
        expected |= {"squared_norms": squares, "grads": [g.mean(0) for g in each]}
        if "clipped" in names:
            c = jnp.minimum(1, 1 / norms)
            expected |= {"clipped": [jnp.tensordot(c, g, 1) for g in each], "coefficients": [c]}
        if names == MORE:
            flat = jnp.concatenate([g.reshape(g.shape[0], -1) for g in each], axis=1)
            expected |= {"gram": [flat @ flat.T], "second_moment": [jnp.square(g).sum(0) for g in each]}
            expected["per_example_grads"] = each
        return expected

    # Random keys are no arrays for NumPy.
    keys = any(jnp.issubdtype(a.dtype, jax.dtypes.extended) for a in jax.tree.leaves(own))
    if keys:
        found, expected = jax.jit(lambda *args: (mine(*args), theirs(*args)))(arrays, own)
    else:
        found, expected = jax.jit(mine)(arrays, own), evaluated(theirs, arrays, own)
    return found, expected, static


def check(loss, params, *examples, names=FEW, in_axes=0, kinds=None, fallback=()):
    """What is found equals the oracle; the factors are of these kinds; nothing but `fallback` was formed."""
    found, expected, static = everything(loss, params, examples, in_axes, names)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for name in expected:
        largest = max(np.abs(e).max(initial=0) for e in jax.tree.leaves(expected[name]))
        for a, e in zip(*map(jax.tree.leaves, (found[name], expected[name])), strict=True):
            assert a.shape == e.shape, name
            np.testing.assert_allclose(a, e, rtol=0, atol=1e-12 * largest, err_msg=name)
    assert found["norms"][0].min() > 0
    assert tuple(f.parameter for f in static["fallback"]) == tuple(fallback), static["fallback"]
    if kinds is not None:
        assert [kind(f) for f in static["factors"]] == kinds.split()


def kind(factor):
    """The structure of a factor in a word: `Transposed(Outer)`."""
    name = type(factor).__name__
    if hasattr(factor, "terms"):
        return f"{name}({'+'.join(map(kind, factor.terms))})"
    return f"{name}({kind(factor.of)})" if hasattr(factor, "of") else name
