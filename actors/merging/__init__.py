"""The merging job: checkpoints in, one checkpoint out, tensor by tensor.

checkpoints.py  Hugging Face folders, read lazily and written in shards
texts.py        texts of domains, cut into parts
tuning.py       fine-tunes a model for a domain
checking.py     what can be known before any work starts
estimating.py   what a merge will need
grams.py        Gram files: one per stage, with a manifest
collecting.py   Gram and Fisher statistics of one model
heads.py        which outputs of the models' heads mean the same
solving.py      RegMean stage by stage, and RegMean++
merging.py      checkpoints of these and of all other methods
judging.py      models answer test texts, and are compared
job.py          all of it in order
"""
