"""Products of arrays, with and without a bias."""
