"""The engine: the joint module, the optimizer step, keyed randomness, preserved state, history and pass counts.

Nothing in here knows ART.
"""
