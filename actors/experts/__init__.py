"""Models that answer: classifiers and generators behind one small protocol (`base.Answerer`)."""
