"""Models: any River estimator behind one interface, learning from the training log in its order.

`catalogue.build_models` makes a `versioned.ModelSet` of the settings; `twins` are bit-identical
compiled forms of two River pipelines; `reasons` says in words what is unusual about an event.
"""
