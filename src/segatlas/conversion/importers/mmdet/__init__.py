"""MMDetection's checkpoints: `backbone.*`, `neck.*`, `rpn_head.*`, `roi_head.*` and other heads."""
