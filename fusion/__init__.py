"""The mathematics: pure functions and estimators over arrays and tensors."""
