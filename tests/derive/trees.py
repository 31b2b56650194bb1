"""Random expressions over every operation that `derive` covers; a seed always gives the same one.

An expression is grown from its result downwards: what is asked for is a scalar, a vector, a matrix or a
batch of matrices of given sizes, and each kind of result has its list of ways to make one.
"""

from . import tree_models, tree_ways
from .tree_grower import Grower, Shape, Tree, Way

__all__ = ["Tree", "tree"]


def _ways(shape: Shape) -> list[Way]:
    ways = [*tree_ways.ANY, *tree_ways.BY_RANK[len(shape)], *tree_models.BY_RANK[len(shape)]]
    if shape:
        ways += tree_models.ANY
    if len(shape) == 2 and shape[0] == shape[1]:
        ways += tree_ways.SQUARE
    return ways


def tree(seed: int) -> Tree:
    """The random function of a seed."""
    grower = Grower(seed, _ways)
    depth = grower.random.choice([2, 2, 3, 3, 3, 4])
    grower.tree.text, grower.tree.value = grower.grow((), depth + 1)
    if not grower.tree.names:
        grower.leaf(())
    return grower.tree
