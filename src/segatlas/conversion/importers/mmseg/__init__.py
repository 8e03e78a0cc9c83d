"""MMSegmentation's checkpoints: `backbone.*`, `decode_head.*`, `auxiliary_head.*`; versions 0.x and 1.x."""
