"""What the losses cost: measured, beside the libraries that have them as well."""
