"""Ways to run a language model, behind one small protocol (`base.Engine`)."""
