"""Pictures and packed arrays made from latents: numpy and PIL in, bytes out.

Knows: sparse codes, colours, image formats. Does not know: models, Gradio, HTML.
"""
