"""Networks of Hugging Face's transformers: tensors in a file, settings in a sidecar config.json."""
