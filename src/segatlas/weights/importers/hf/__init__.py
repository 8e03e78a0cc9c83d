"""Networks of Hugging Face's transformers: tensors in a file, settings in a config.json beside it."""
