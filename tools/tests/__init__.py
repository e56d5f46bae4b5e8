"""Tests of the project's own tools; `make check` runs them."""
