"""The methods: one folder each, self-contained, behind the contract of `bench.method`."""
