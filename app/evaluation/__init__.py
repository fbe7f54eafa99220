"""How good a model is: LUNA16's FROC and NODE21's figures, by the service's own pipeline. Training stands on it too."""
