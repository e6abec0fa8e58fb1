"""What `training/photos.py` is made of: views of photographs, names of latents, words of classes, figures."""
