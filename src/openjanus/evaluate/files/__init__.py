"""Files: the forms in which benchmarks are published, and the records that a run writes."""
