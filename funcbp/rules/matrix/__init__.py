"""Matrix functions: the boxed identities of matrix calculus, factorizations and norms."""

__all__: list[str] = []
