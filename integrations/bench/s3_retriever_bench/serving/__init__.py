"""`serve`, `cluster`, `build` and `frameworks`: many clients, workers and event loops."""
