"""Jacobians that keep their structure: one file a structure, and `jacobian`, which finds it.

Y = X W             by W: I ⊗ X           by X: Wᵀ ⊗ I      (vec stacks columns)
Y = A X B           by X: Bᵀ ⊗ A          Y = Xᵀ: K         (commutation)
q = σ(p)            Diag(σ′)              q = softmax(p): Diag(q) - q qᵀ, a block for every row
P = X ⋆ W           by W: I ⊗ patches(X)  average pooling: I ⊗ P ⊗ I; maximum: a selection
a network           the product of its layers' operators
"""

from ._jacobian import jacobian as jacobian
from ._operator import Operator as Operator
from .block_diagonal import BlockDiagonal as BlockDiagonal
from .diagonal import Diagonal as Diagonal
from .identity import Identity as Identity
from .kronecker import Kronecker as Kronecker
from .kronecker import from_left as from_left
from .kronecker import from_right as from_right
from .low_rank import DiagonalPlusLowRank as DiagonalPlusLowRank
from .matrix_free import Linear as Linear
from .matrix_free import MatrixFree as MatrixFree
from .product import Product as Product
from .repeated import Repeated as Repeated
from .repeated import RepeatedByParameter as RepeatedByParameter
from .scaled import Scaled as Scaled
from .selection import Commutation as Commutation
from .selection import Selection as Selection
from .special import KhatriRao as KhatriRao
from .special import commutation as commutation
from .special import duplication as duplication
from .special import elimination as elimination
from .sum import Sum as Sum
from .tensor_product import TensorProduct as TensorProduct
from .tensor_product import tensor_product as tensor_product
from .transposed import Transposed as Transposed

__all__ = [
    "BlockDiagonal",
    "Commutation",
    "Diagonal",
    "DiagonalPlusLowRank",
    "Identity",
    "KhatriRao",
    "Kronecker",
    "Linear",
    "MatrixFree",
    "Operator",
    "Product",
    "Repeated",
    "RepeatedByParameter",
    "Scaled",
    "Selection",
    "Sum",
    "TensorProduct",
    "Transposed",
    "commutation",
    "duplication",
    "elimination",
    "from_left",
    "from_right",
    "jacobian",
    "tensor_product",
]
