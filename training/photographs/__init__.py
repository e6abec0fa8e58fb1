"""What `training/photos.py` is made of: a look at every photo, names, words of classes, figures."""
