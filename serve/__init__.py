"""Programs that tag: whole catalogues, the demonstration, benchmarks."""
