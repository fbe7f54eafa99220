"""Durable jobs: a scan that was acknowledged is analysed exactly once, whatever is killed on the way.

`ledger` is the truth: who may do what to a job in which state, one transaction each. `queue` is the port to the engine
that hands tickets to workers; a ticket that arrives twice, late or never does no harm, because the ledger decides.
"""
