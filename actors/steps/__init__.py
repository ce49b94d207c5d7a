"""The steps of a job: functions from committed steps and parameters to files and facts.

A step function takes `(run, step, params)`, reads what `params` names, writes its files into the step and
returns JSON facts for the manifest. Its parameters are its identity: the same parameters give the same
bytes, so a finished step is never done again and a lost one can be.
"""
