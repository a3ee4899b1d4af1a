"""One quiet theme, light and dark; the style sheets have what Gradio's theme variables can't say."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils import fonts

STYLES = ("page", "dataset", "train", "generate")  # page.css is for the whole page, each of the others for a tab
CSS = "\n".join((Path(__file__).parent / "styles" / f"{name}.css").read_text("utf-8") for name in STYLES)

INK = gr.themes.Color(
    name="ink",
    c50="#eef6f5", c100="#d7ebe8", c200="#b1d7d2", c300="#82bdb6", c400="#539e97", c500="#37827c",
    c600="#2a6863", c700="#245450", c800="#204441", c900="#1d3937", c950="#0d2120",
)  # fmt: skip
PAPER = gr.themes.Color(
    name="paper",
    c50="#fafaf8", c100="#f4f4f1", c200="#e7e6e2", c300="#d4d3ce", c400="#a5a49e", c500="#77766f",
    c600="#57564f", c700="#403f3a", c800="#2a2a27", c900="#1e1e1c", c950="#151514",
)  # fmt: skip


VARIABLES = dict(
    body_background_fill="*neutral_100",
    body_background_fill_dark="*neutral_950",
    body_text_color="*neutral_900",
    body_text_color_dark="*neutral_100",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    background_fill_primary="white",
    background_fill_primary_dark="*neutral_900",
    background_fill_secondary="*neutral_50",
    background_fill_secondary_dark="*neutral_900",
    border_color_primary="*neutral_200",
    border_color_primary_dark="*neutral_800",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_width="1px",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    block_shadow="none",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    block_label_border_width_dark="0px",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="*neutral_300",
    block_label_text_weight="600",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_200",
    block_title_text_weight="600",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
    input_background_fill="*neutral_50",
    input_background_fill_dark="*neutral_950",
    input_border_color="*neutral_300",
    input_border_color_dark="*neutral_700",
    input_border_width="1px",
    input_border_color_focus="*primary_500",
    input_border_color_focus_dark="*primary_400",
    input_shadow_focus="0 0 0 2px *primary_100",
    input_shadow_focus_dark="0 0 0 2px *primary_900",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_600",
    button_primary_background_fill_dark="*primary_500",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
    button_secondary_background_fill="white",
    button_secondary_background_fill_hover="*neutral_100",
    button_secondary_background_fill_dark="*neutral_800",
    button_secondary_background_fill_hover_dark="*neutral_700",
    button_secondary_border_color="*neutral_300",
    button_secondary_border_color_dark="*neutral_700",
    button_border_width="1px",
    button_primary_border_color="transparent",
    button_primary_border_color_dark="transparent",
    button_large_text_weight="600",
    button_transition="background-color .15s ease",
    checkbox_background_color_selected="*primary_700",
    checkbox_background_color_selected_dark="*primary_500",
    checkbox_border_color_selected="*primary_700",
    checkbox_border_color_selected_dark="*primary_500",
    checkbox_label_background_fill="transparent",
    checkbox_label_background_fill_dark="transparent",
    slider_color="*primary_600",
    slider_color_dark="*primary_400",
    loader_color="*primary_600",
    accordion_text_color="*neutral_800",
    accordion_text_color_dark="*neutral_200",
    error_background_fill="#fdf3f1",
    error_background_fill_dark="#2b1a17",
    layout_gap="14px",
    form_gap_width="0px",
)  # of Gradio's theme, light and dark


def theme() -> gr.themes.Base:
    """Warm paper, one deep green for what matters, thin lines, no shadows.

    Fonts come from Gradio's own files; its semi-bold ones hold a few letters only, so bold stands in for 600.
    """
    return gr.themes.Base(
        primary_hue=INK,
        secondary_hue=INK,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
        font=(fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(**VARIABLES)
