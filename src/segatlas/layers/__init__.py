"""Parts of networks that several architectures share."""
