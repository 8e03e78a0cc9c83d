"""The authors' own KF-VTON: files of its segmenter."""
