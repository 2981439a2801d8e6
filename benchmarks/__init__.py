"""What redense claims about speed and memory, measured beside its peers on one machine in one run.

``python -m benchmarks`` runs everything (about 25 minutes on two quiet cores), ``--quick`` a smoke
of it (under 2). Each file measures one claim and can be run alone; each measurement has a process
of its own, so that threads are set before torch starts and a peak of memory is its own.
"""
