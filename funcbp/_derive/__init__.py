"""From a JAX function to the derivation of its gradient: as text, formula and code."""

from ._api import derive as derive
from ._derivation import Derivation as Derivation
from ._derivation import Formula as Formula
from ._errors import NotScalarError as NotScalarError
from ._errors import UnsupportedError as UnsupportedError

__all__ = ["Derivation", "Formula", "NotScalarError", "UnsupportedError", "derive"]
