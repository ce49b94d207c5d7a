"""The comparison: the same models fused through data, outputs and weights, side by side.

texts.py       what STMs are trained on, what fusers learn from, and what is judged on
answering.py   STMs answer texts; how long one request takes
pooling.py     answers as a pool of experts, for the routing job
made.py        models and fusers that are there before anything is judged
judging.py     answers become accuracies with intervals and paired tests
costs.py       what fusions cost to train, to serve and to wait for
verdict.py     what is worth its price, and the recommendation in words
summary.py     what `summary.json` says
serving.py     lays the winner down where `jobs serve` looks for it
job.py         all of it in order, with the steps of the three jobs
"""
