"""The authors' own AFMA: files of their training, `My_HOST_ENCODER_LEVEL_val.pth`."""
