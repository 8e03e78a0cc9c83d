"""Files from elsewhere, as they are: over http, and from the Hugging Face hub."""
