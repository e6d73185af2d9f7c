"""Data sets on disk: written (phantom), fetched (decathlon), read, verified, prepared, split."""
