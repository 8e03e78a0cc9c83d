"""The authors' EoMT repository: files hold tensors only, under the names of timm's transformers."""
