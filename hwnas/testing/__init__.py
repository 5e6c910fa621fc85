"""Public conformance suites: a new plug-in subclasses one and inherits its tests."""
