"""Search spaces: what a trial may look like.

A space is a module with `suggest(trial) -> TrialConfig`, `baseline() -> TrialConfig` and, where the
built-in networks are not wanted, `build(config, input_shape, classes) -> keras.Model`.
"""
