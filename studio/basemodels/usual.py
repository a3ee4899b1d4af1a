"""The model of the Hub that people mean by a family's name: what an adapter of that family is offered."""

USUAL = {  # by the names of `adapters.family`; those of which several sizes are about are left out
    "Stable Diffusion 1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "SDXL": "stabilityai/stable-diffusion-xl-base-1.0",
    "FLUX.1": "black-forest-labs/FLUX.1-dev",
    "Z-Image": "Tongyi-MAI/Z-Image-Turbo",
}
