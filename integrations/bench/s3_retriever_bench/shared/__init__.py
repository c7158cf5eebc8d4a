"""What all benchmarks share: texts, kept runs, processes, statistics, tables and pictures."""
