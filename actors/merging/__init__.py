"""The merging job: checkpoints in, one checkpoint out, tensor by tensor.

checkpoints.py  Hugging Face folders, read lazily and written in shards
texts.py        texts of domains, cut into parts
tuning.py       fine-tunes a model for a domain
grams.py        Gram files: one per stage, with a manifest
collecting.py   Gram and Fisher statistics of one model
merging.py      solves stage by stage, and all other methods
judging.py      models answer test texts, and are compared
job.py          all of it in order
"""
