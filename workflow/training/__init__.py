"""One run: a network trained with one loss, one learning rate and one seed."""
