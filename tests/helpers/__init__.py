"""What tests of several rooms share; no test imports from a test."""
