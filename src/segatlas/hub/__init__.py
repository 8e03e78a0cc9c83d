"""What a name means: the catalogue of published weights, fetching, resolving, loading."""
