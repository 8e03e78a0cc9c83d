"""RefineNet in PyTorch as it was published with weights for VOC (github.com/DrSleep/refinenet-pytorch)."""
