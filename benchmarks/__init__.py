"""Our figures beside our peers', one command: `make bench`, or `python -m benchmarks SUBJECT`.

measure       what a run costs, contenders in turn, the results file
worker        runs one contender in a process of its own, with the interpreter it needs
environment   where the peers are installed: they pin old parts, so apart from ours
contenders/   one file a library: how to do the job with it
subjects/     one file a subject: who is compared at what
plot          how the cost of jobs grows
results/      what it gave on which processor
"""
