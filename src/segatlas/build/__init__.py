"""From a config to a network: its layers, its encoder's weights, the weights of an earlier model."""
